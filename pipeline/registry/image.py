"""What the registry knows of an image: its digests, platforms and labels."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.registry.connection import RegistryError
from pipeline.registry.reference import parse_reference
from pipeline.registry.repository import INDEXES, Manifest, Repository

__all__ = ["Image", "Platform", "image_ids", "image_labels", "image_platforms", "is_image", "resolve"]

CONFIG_BYTES = 2**20  # of an image


@dataclass(frozen=True)
class Platform:
    """The image of one platform (`linux/arm64`; None where the image is for one alone and does not say)."""

    name: str | None
    digest: str
    config: str


@dataclass(frozen=True)
class Image:
    """An image in its repository. `media_type` and `size` (bytes) are those of its manifest or index."""

    repository: str
    digest: str
    media_type: str
    size: int
    platforms: tuple[Platform, ...]

    @property
    def reference(self) -> str:
        """Its name by digest."""
        return f"{self.repository}@{self.digest}"

    @property
    def ids(self) -> frozenset[str]:
        """Every digest that an engine may call it by: the index, a manifest, a config."""
        return frozenset({self.digest, *(one for each in self.platforms for one in (each.digest, each.config))})


def resolve(reference: str) -> Image:
    """The image that REFERENCE (a tag or a digest) is now. Where it has both, they must agree.

    Raises `UsageError` for no reference, `RegistryError` (`RegistryLacks` where there is none) for the registry's.
    """
    wanted = parse_reference(reference)
    with Repository(wanted.repository) as repository:
        found = repository.manifest(wanted.tag or wanted.digest or "latest")
        if wanted.digest not in (None, found.digest):
            raise RegistryError(
                f"{wanted.repository}:{wanted.tag} is {found.digest} now and not {wanted.digest}: the tag was moved;"
                f" name {wanted.repository}@{wanted.digest}"
            )
        return _image(repository, found)


def image_ids(reference: str) -> set[str]:
    """Every digest by which an engine may call the image: its index, each platform's manifest and its config.

    Raises as `resolve` does.
    """
    return set(resolve(reference).ids)


def image_platforms(reference: str) -> frozenset[str]:
    """The platforms that the image REFERENCE runs on (`linux/amd64`); empty where it does not say. Raises as `resolve`
    does.
    """
    image = resolve(reference)
    named = [one.name or _said_platform(image, one) for one in image.platforms]
    return frozenset("/".join(name.split("/")[:2]) for name in named if name)


def _said_platform(image: Image, one: Platform) -> str | None:
    with Repository(image.repository) as repository:
        return _platform({"platform": json.loads(repository.blob(one.config, limit=CONFIG_BYTES))})


def image_labels(reference: str) -> dict[str, str]:
    """The labels of the image REFERENCE (of an index: of its first image; a build gives all the same). Raises as
    `resolve` does.
    """
    image = resolve(reference)
    with Repository(image.repository) as repository:
        config = json.loads(repository.blob(image.platforms[0].config, limit=CONFIG_BYTES))
    labels: dict[str, str] = (config.get("config") or {}).get("Labels") or {}
    return labels


def is_image(image_id: str, ids: Collection[str]) -> bool:
    """Whether IMAGE_ID (`imageID` of a container's status: a digest, with or without a name before it) is in IDS."""
    return image_id.rpartition("@")[2].rpartition("//")[2] in ids


def _image(repository: Repository, found: Manifest) -> Image:
    if found.media_type in INDEXES:
        entries = [one for one in found.manifests if _runs(one)]
        platforms = tuple(
            Platform(_platform(one), one["digest"], _config(repository, repository.manifest(one["digest"])))
            for one in entries
        )
    else:
        platforms = (Platform(None, found.digest, _config(repository, found)),)
    return Image(repository.name, found.digest, found.media_type, found.size, platforms)


def _runs(entry: dict[str, Any]) -> bool:
    """Whether an entry of an index is an image: BuildKit puts its attestations there, too, for the platform unknown."""
    return (entry.get("platform") or {}).get("os") != "unknown"


def _platform(entry: Mapping[str, Any]) -> str | None:
    platform = entry.get("platform") or {}
    parts = [platform.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if part) or None


def _config(repository: Repository, manifest: Manifest) -> str:
    digest = (manifest.content.get("config") or {}).get("digest")
    if not isinstance(digest, str):
        raise RegistryError(f"{repository.name}@{manifest.digest}: {manifest.media_type} is no image: name an image")
    return digest
