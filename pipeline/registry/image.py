"""An image as its registry has it: its digests, platforms and labels."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.registry.connection import RegistryError
from pipeline.registry.reference import parse_reference
from pipeline.registry.repository import INDEXES, Manifest, Repository

__all__ = ["Image", "Platform", "image_ids", "image_labels", "image_platforms", "is_image", "resolve", "tagged_digest"]

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
        """The image's name by digest."""
        return f"{self.repository}@{self.digest}"

    @property
    def ids(self) -> frozenset[str]:
        """Every digest by which an engine may name it: of the index, of a manifest, of a config."""
        return frozenset({self.digest, *(digest for each in self.platforms for digest in (each.digest, each.config))})


def resolve(reference: str) -> Image:
    """Return the image that `reference` (a tag or a digest) names now. Where it has both, they must agree.

    Raise `UsageError` where it is not a reference, `RegistryLacks` where there is no such image, and `RegistryError`
    where the tag was moved, or the registry is away or refuses.
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


def tagged_digest(reference: str) -> str:
    """Return the digest that the tag of `reference` names now. Raise as `resolve` does where it cannot be had."""
    # `resolve` asks for every platform as well, and Docker Hub limits how many manifests it sends to one client.
    wanted = parse_reference(reference)
    with Repository(wanted.repository) as repository:
        return repository.manifest(wanted.tag or "latest").digest


def image_ids(reference: str) -> set[str]:
    """Return every digest by which an engine may name the image: of its index, of each platform's manifest and config.

    Raise as `resolve` does.
    """
    return set(resolve(reference).ids)


def image_platforms(reference: str) -> frozenset[str]:
    """Return the platforms that the image `reference` runs on (`linux/amd64`); empty where it does not say.

    Raise as `resolve` does.
    """
    image = resolve(reference)
    named = [platform.name or _said_platform(image, platform) for platform in image.platforms]
    return frozenset("/".join(name.split("/")[:2]) for name in named if name)


def _said_platform(image: Image, one: Platform) -> str | None:
    """Return the platform that the image's own config names."""
    with Repository(image.repository) as repository:
        return _platform({"platform": json.loads(repository.blob(one.config, limit=CONFIG_BYTES))})


def image_labels(reference: str) -> dict[str, str]:
    """Return the labels of the image `reference`, of an index those of its first image. Raise as `resolve` does."""
    # A build gives all images of an index the same labels.
    image = resolve(reference)
    with Repository(image.repository) as repository:
        config = json.loads(repository.blob(image.platforms[0].config, limit=CONFIG_BYTES))
    labels: dict[str, str] = (config.get("config") or {}).get("Labels") or {}
    return labels


def is_image(image_id: str, ids: Collection[str]) -> bool:
    """Return whether `image_id` is in `ids`.

    It is the `imageID` of a container's status: a digest, with or without a name before it.
    """
    return image_id.rpartition("@")[2].rpartition("//")[2] in ids


def _image(repository: Repository, found: Manifest) -> Image:
    if found.media_type in INDEXES:
        entries = [entry for entry in found.manifests if _runs(entry)]
        platforms = tuple(
            Platform(_platform(entry), entry["digest"], _config(repository, repository.manifest(entry["digest"])))
            for entry in entries
        )
    else:
        platforms = (Platform(None, found.digest, _config(repository, found)),)
    return Image(repository.name, found.digest, found.media_type, found.size, platforms)


def _runs(entry: dict[str, Any]) -> bool:
    """Return whether an entry of an index is an image."""
    # BuildKit puts its attestations there, too, for the platform `unknown`.
    return (entry.get("platform") or {}).get("os") != "unknown"


def _platform(entry: Mapping[str, Any]) -> str | None:
    platform = entry.get("platform") or {}
    parts = [platform.get(key) for key in ("os", "architecture", "variant")]
    return "/".join(part for part in parts if part) or None


def _config(repository: Repository, manifest: Manifest) -> str:
    digest = (manifest.content.get("config") or {}).get("digest")
    if not isinstance(digest, str):
        raise RegistryError(
            f"{repository.name}@{manifest.digest}: {manifest.media_type} is not an image: name an image"
        )
    return digest
