"""A release in another repository, byte for byte: where those who run it cannot read the first one."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import UsageError
from pipeline.images import SHORT
from pipeline.oci import Repository, parse_reference

__all__ = ["copy_release"]

LAYER_BYTES = 2**31  # a layer is in memory while it is copied; one of ours has 30 MB


def copy_release(reference: str, repository: str, say: Callable[[str], None]) -> str:
    """Have the three images of the release REFERENCE (`repository@sha256:…`) in REPOSITORY, too; the digest, which is
    the same there: what is copied are bytes. Signatures and proofs stay where they are.

    Raises `UsageError` for a reference without digest, and `RegistryError`.
    """
    wanted = parse_reference(reference)
    if wanted.digest is None:
        raise UsageError(f"{reference}: a tag can be moved: name {wanted.repository}@sha256:…")
    short = wanted.digest.removeprefix("sha256:")[:SHORT]
    with Repository(wanted.repository) as here, Repository(repository, write=True) as there:
        for name in (wanted.digest, f"migrate-{short}", f"frontend-{short}"):
            say(f"{wanted.repository}: {name} → {repository}")
            _copy(here, there, name)
    return wanted.digest


def _copy(here: Repository, there: Repository, name: str) -> None:
    """Copy a manifest and what it names; the manifest last, as a registry refuses one whose parts it has not got."""
    found = here.manifest(name)
    for one in found.manifests:
        _copy(here, there, one["digest"])
    for blob in [found.content.get("config"), *found.content.get("layers", [])]:
        if blob and not there.has_blob(blob["digest"]):
            there.put_blob(here.blob(blob["digest"], limit=LAYER_BYTES))
    there.put_manifest(name, found.raw, found.media_type)
