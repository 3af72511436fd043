"""What is in an image, by syft: a bill of materials (SBOM) in CycloneDX and in SPDX."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.registry.image import resolve
from pipeline.registry.reference import Reference, parse_reference
from pipeline.system.run import CommandFailed, run

__all__ = ["LARGEST_ATTESTED", "Sbom", "make_sboms", "python_packages", "syft_command", "too_large"]

# Sigstore's public log closes the connection on an attestation of 3.5 MB (sigstore/cosign#3599), and says not why.
LARGEST_ATTESTED = 2 * 2**20
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Sbom:
    """The bill of one image, of one platform where there are more: `reference` names it by digest."""

    reference: str
    cyclonedx: Path
    spdx: Path


def make_sboms(references: Iterable[str], folder: Path, say: Callable[[str], None]) -> list[Sbom]:
    """A bill for each platform of each image of REFERENCES, below FOLDER/DIGITS-OF-ITS-DIGEST; what is there stays, as
    a digest's content does. Raises `SlipwayError` with what syft or the registry has against it.
    """
    places = [
        parse_reference(f"{image.repository}@{platform.digest}")
        for image in map(resolve, references)
        for platform in image.platforms
    ]
    return [_make(place, folder, say) for place in places]


def _make(place: Reference, folder: Path, say: Callable[[str], None]) -> Sbom:
    own = folder / str(place.digest).removeprefix("sha256:")  # a colon is no good in the name of an artifact
    found = Sbom(f"{place.repository}@{place.digest}", own / "sbom.cdx.json", own / "sbom.spdx.json")
    if not (found.cyclonedx.exists() and found.spdx.exists()):
        own.mkdir(parents=True, exist_ok=True)
        half = Sbom(found.reference, own / "half.cdx.json", own / "half.spdx.json")
        # A file's every digest makes SPDX ten times as large, and is what the image's own digest says.
        environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_FILE_METADATA_SELECTION": "none"}
        try:
            run(syft_command(half), say=say, env=environment, timeout=TIMEOUT_SECONDS)
        except CommandFailed as error:
            said = error.output.strip().splitlines() or ["it said nothing"]
            raise SlipwayError(f"{found.reference}: syft: {said[-1][:400]}") from error
        half.spdx.replace(found.spdx)
        half.cyclonedx.replace(found.cyclonedx)
    return found


def syft_command(sbom: Sbom) -> list[str]:
    """The command line that writes SBOM, from the registry and not from what an engine has under that name."""
    formats = (f"cyclonedx-json={sbom.cyclonedx}", f"spdx-json={sbom.spdx}")
    outputs = [word for one in formats for word in ("--output", one)]
    syft = Path(sys.executable).with_name("syft")  # of our own environment, not the machine's
    return [str(syft), "scan", "--quiet", f"registry:{sbom.reference}", *outputs]


def python_packages(sboms: Iterable[Sbom]) -> dict[str, set[str]]:
    """The Python packages that SBOMS name, with their versions."""
    found: dict[str, set[str]] = {}
    for one in sboms:
        for part in json.loads(one.cyclonedx.read_text(encoding="utf-8")).get("components", []):
            if str(part.get("purl", "")).startswith("pkg:pypi/") and part.get("version"):
                found.setdefault(part["name"], set()).add(part["version"])
    return found


def too_large(sbom: Sbom) -> str | None:
    """What is wrong with the size of SBOM for a public log, in one line."""
    size = sbom.cyclonedx.stat().st_size
    if size <= LARGEST_ATTESTED:
        return None
    return (
        f"{sbom.reference}: its SBOM has {size / 2**20:.1f} MiB, and Sigstore's public log takes"
        f" {LARGEST_ATTESTED / 2**20:.0f} at most: a smaller image, or a key pair (COSIGN_KEY), which needs no log"
    )
