"""A release in another repository, of the real registry."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.images.build import find_pushed, short_digest
from pipeline.images.copy import copy_release
from pipeline.registry.connection import RegistryLacks
from pipeline.registry.image import resolve
from pipeline.registry.repository import Repository
from tests.registries import push_image, push_index


class TestCopyRelease:
    def test_keeps_every_digest(self, registry: str) -> None:
        """An index of two platforms with its attestation, and the images beside it: the same bytes elsewhere."""
        repository = f"{registry}/team/whole"
        digest, manifests = push_index(repository, "amd64", "arm64")
        short = short_digest(digest)
        tags = [f"{part}-{short}" for part in ("migrate", "frontend", "backup")]
        others = {tag: push_image(repository, tag, tag=tag) for tag in tags}
        elsewhere = f"{repository}-copy"
        for _ in range(2):
            assert copy_release(f"{repository}@{digest}", elsewhere) == digest
        assert resolve(f"{elsewhere}@{digest}").ids == resolve(f"{repository}@{digest}").ids
        assert {tag: resolve(f"{elsewhere}:{tag}").digest for tag in others} == others
        with Repository(elsewhere) as opened:
            assert [opened.manifest(one).digest for one in manifests] == manifests
            config = opened.manifest(manifests[0]).content["config"]["digest"]
            assert opened.blob(config, limit=10_000)

    def test_takes_a_release_of_before(self, registry: str) -> None:
        """Which was pushed without the image of backups."""
        repository = f"{registry}/team/before"
        digest = push_image(repository)
        for part in ("migrate", "frontend"):
            push_image(repository, part, tag=f"{part}-{short_digest(digest)}")
        copy_release(f"{repository}@{digest}", f"{repository}-copy")
        assert find_pushed(f"{repository}-copy@{digest}").parts.keys() == {"backend", "migrate", "frontend"}

    def test_takes_no_tag_and_no_half_release(self, registry: str) -> None:
        """What could be moved is not named by its digest; an image alone cannot be deployed."""
        repository = f"{registry}/team/half"
        digest = push_image(repository)
        with pytest.raises(UsageError, match="a tag can be moved"):
            copy_release(f"{repository}:latest", f"{repository}-copy")
        with pytest.raises(RegistryLacks, match="migrate-"):
            copy_release(f"{repository}@{digest}", f"{repository}-half")
