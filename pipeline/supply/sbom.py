"""The contents of an image, by syft: a bill of materials (SBOM) in CycloneDX and in SPDX."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.registry.image import resolve
from pipeline.registry.reference import Reference, parse_reference
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["LARGEST_ATTESTED", "Sbom", "make_sboms", "python_packages", "syft_command", "too_large"]

# Sigstore's public log closes the connection on an attestation of 3.5 MB (sigstore/cosign#3599) without saying why.
LARGEST_ATTESTED = 2 * 2**20
TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Sbom:
    """The bill of one image, of one platform where it has several: `reference` names it by digest."""

    reference: str
    cyclonedx: Path
    spdx: Path


def make_sboms(references: Iterable[str], folder: Path) -> list[Sbom]:
    """Write a bill for each platform of each image of `references`, below `folder`/DIGITS-OF-ITS-DIGEST.

    Bills that exist are kept. Raise `SlipwayError` with the complaint of syft or the registry.
    """
    # The content of a digest never changes, so an existing bill still holds.
    places = [
        parse_reference(f"{image.repository}@{platform.digest}")
        for image in map(resolve, references)
        for platform in image.platforms
    ]
    return [_make(place, folder) for place in places]


def _make(place: Reference, folder: Path) -> Sbom:
    own = folder / str(place.digest).removeprefix("sha256:")  # the name of an artifact may not have a colon
    sbom = Sbom(f"{place.repository}@{place.digest}", own / "sbom.cdx.json", own / "sbom.spdx.json")
    if not (sbom.cyclonedx.exists() and sbom.spdx.exists()):
        own.mkdir(parents=True, exist_ok=True)
        half = Sbom(sbom.reference, own / "half.cdx.json", own / "half.spdx.json")
        # The digest of each file would make SPDX ten times as large, and the image's own digest covers them.
        environment = {**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false", "SYFT_FILE_METADATA_SELECTION": "none"}
        try:
            run(syft_command(half), env=environment, timeout=TIMEOUT_SECONDS)
        except CommandFailed as error:
            said = error.output.strip().splitlines() or ["it said nothing"]
            raise SlipwayError(f"{sbom.reference}: syft: {shorten(said[-1])}") from error
        half.spdx.replace(sbom.spdx)
        half.cyclonedx.replace(sbom.cyclonedx)
    return sbom


def syft_command(sbom: Sbom) -> list[str]:
    """Return the command line that writes `sbom`, from the registry and not from what an engine has by that name."""
    formats = (f"cyclonedx-json={sbom.cyclonedx}", f"spdx-json={sbom.spdx}")
    outputs = [word for each in formats for word in ("--output", each)]
    syft = Path(sys.executable).with_name("syft")  # of our own environment, not the machine's
    return [str(syft), "scan", "--quiet", f"registry:{sbom.reference}", *outputs]


def python_packages(sboms: Iterable[Sbom]) -> dict[str, set[str]]:
    """Return the Python packages that `sboms` name, with their versions."""
    packages: dict[str, set[str]] = {}
    for sbom in sboms:
        for part in json.loads(sbom.cyclonedx.read_text(encoding="utf-8")).get("components", []):
            if str(part.get("purl", "")).startswith("pkg:pypi/") and part.get("version"):
                packages.setdefault(part["name"], set()).add(part["version"])
    return packages


def too_large(sbom: Sbom) -> str | None:
    """Return a line that says that `sbom` is too large for a public log, None where it is not."""
    size = sbom.cyclonedx.stat().st_size
    if size <= LARGEST_ATTESTED:
        return None
    return (
        f"{sbom.reference}: its SBOM has {size / 2**20:.1f} MiB, and Sigstore's public log takes"
        f" {LARGEST_ATTESTED / 2**20:.0f} at most: use a smaller image, or a key pair (COSIGN_KEY), which needs no log"
    )
