"""Base images pinned by digest, where their registry answers: the same build next year, and no surprise in a tag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.registry.image import tagged_digest
from pipeline.system.files import write_whole

__all__ = ["Pin", "current_digests", "find_pins", "pinned", "write_pins"]

# The files that name other people's images: in a Dockerfile's ARG, in the default of a variable of docker-compose.yml,
# and in what a manifest of k8s/ runs (the release's own images have no tag there: a deploy names them by digest).
FILES = (
    "docker/Dockerfile.backend",
    "docker/Dockerfile.frontend",
    "docker-compose.yml",
    "docker/compose.monitoring.yml",
)
MANIFESTS = "k8s"
NAMED = re.compile(
    r"(?P<lead>^ARG \w+_IMAGE=|\$\{(?:POSTGRES|REDIS)_IMAGE:-|^ +(?:- )?image: )"
    r"(?P<name>[a-z0-9][a-z0-9_./:-]*:(?:\$\{\w+(?::-[\w.]+)?\}|[\w.-])+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Pin:
    """A base image that `file` names, and the digest that it has there (None: the tag alone)."""

    file: str
    name: str
    digest: str | None

    def reference(self, variables: Mapping[str, str]) -> str:
        """Return the image's name and tag, with each `${NAME}` filled in from `variables`."""
        return re.sub(r"\$\{(\w+)(?::-[\w.]+)?\}", lambda found: variables[found[1]], self.name)


def find_pins(root: Path) -> list[Pin]:
    """Return every base image that the repository at `root` names."""
    manifests = sorted(path.relative_to(root).as_posix() for path in (root / MANIFESTS).rglob("*.yaml"))
    return [
        Pin(file, found["name"], found["digest"])
        for file in (*FILES, *manifests)
        if (root / file).exists()
        for found in NAMED.finditer((root / file).read_text(encoding="utf-8"))
    ]


def pinned(text: str, digests: Mapping[str, str]) -> str:
    """Return the `text` of a file with the digest from `digests` after each name."""

    def pin(found: re.Match[str]) -> str:
        digest = digests.get(found["name"], found["digest"])
        return f"{found['lead']}{found['name']}{f'@{digest}' if digest else ''}"

    return NAMED.sub(pin, text)


def current_digests(root: Path, variables: Mapping[str, str]) -> list[tuple[Pin, str]]:
    """Return each pin with the digest that its tag has in its registry now. Raise `SlipwayError` without an answer."""
    found = []
    for pin in find_pins(root):
        reference = pin.reference(variables)
        try:
            found.append((pin, tagged_digest(reference)))
        except SlipwayError as error:
            what = f"{pin.file}: no registry answered for {reference}"
            raise SlipwayError(f"{what}: {error}; nothing was changed") from None
    return found


def write_pins(root: Path, found: list[tuple[Pin, str]]) -> list[str]:
    """Write the digests; return the files that changed."""
    changed = []
    for file in dict.fromkeys(pin.file for pin, _ in found):
        path = root / file
        text = path.read_text(encoding="utf-8")
        new = pinned(text, {pin.name: digest for pin, digest in found if pin.file == file})
        if new != text:
            mode = path.stat().st_mode
            write_whole(path, new)
            path.chmod(mode)
            changed.append(file)
    return changed
