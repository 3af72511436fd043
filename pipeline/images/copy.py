"""Copies of a release in another repository, byte for byte, for those who run it and cannot read the first one."""

from __future__ import annotations

import logging

from pipeline.images.build import find_pushed, push_references
from pipeline.registry.repository import Repository

__all__ = ["copy_release"]

log = logging.getLogger(__name__)

LAYER_BYTES = 2**31  # a layer is in memory while it is copied; one of ours has 30 MB


def copy_release(reference: str, repository: str) -> str:
    """Copy the images of the release `reference` (`repository@sha256:…`) to `repository`; return the digest.

    The digest is the same there, because bytes are copied. Signatures and proofs stay where they are. Raise
    `UsageError` for a reference without digest or of another build, and `RegistryError` where a registry is away or
    refuses.
    """
    images = find_pushed(reference)
    tags = push_references(repository, images.backend, images.others)
    with Repository(images.repository) as here, Repository(repository, write=True) as there:
        for digest in images.parts.values():
            log.info(f"{images.repository}@{digest} → {repository}")
            _copy(here, there, digest)
        for part, tag in tags.items():
            there.tag(images.others[part], tag.removeprefix(f"{repository}:"))
    return images.backend


def _copy(here: Repository, there: Repository, name: str) -> None:
    """Copy a manifest and what it names; the manifest last, because a registry refuses one whose parts it lacks."""
    manifest = here.manifest(name)
    for entry in manifest.manifests:
        _copy(here, there, entry["digest"])
    for blob in [manifest.content.get("config"), *manifest.content.get("layers", [])]:
        if blob and not there.has_blob(blob["digest"]):
            there.put_blob(here.blob(blob["digest"], limit=LAYER_BYTES))
    there.put_manifest(name, manifest.raw, manifest.media_type)
