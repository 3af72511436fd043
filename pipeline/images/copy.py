"""A release in another repository, byte for byte: where those who run it cannot read the first one."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.images.build import find_pushed, push_references
from pipeline.registry.repository import Repository

__all__ = ["copy_release"]

LAYER_BYTES = 2**31  # a layer is in memory while it is copied; one of ours has 30 MB


def copy_release(reference: str, repository: str, say: Callable[[str], None]) -> str:
    """Have the three images of the release REFERENCE (`repository@sha256:…`) in REPOSITORY, too; the digest, which is
    the same there: what is copied are bytes. Signatures and proofs stay where they are.

    Raises `UsageError` for a reference without digest or of another build, and `RegistryError`.
    """
    found = find_pushed(reference)
    tags = push_references(repository, found.backend, found.migrate, found.frontend)
    with Repository(found.repository) as here, Repository(repository, write=True) as there:
        for digest in (found.backend, *tags):
            say(f"{found.repository}@{digest} → {repository}")
            _copy(here, there, digest)
        for digest, tag in tags.items():
            there.tag(digest, tag.removeprefix(f"{repository}:"))
    return found.backend


def _copy(here: Repository, there: Repository, name: str) -> None:
    """Copy a manifest and what it names; the manifest last, as a registry refuses one whose parts it has not got."""
    found = here.manifest(name)
    for one in found.manifests:
        _copy(here, there, one["digest"])
    for blob in [found.content.get("config"), *found.content.get("layers", [])]:
        if blob and not there.has_blob(blob["digest"]):
            there.put_blob(here.blob(blob["digest"], limit=LAYER_BYTES))
    there.put_manifest(name, found.raw, found.media_type)
