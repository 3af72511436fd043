"""The releases of the compose target: their images, their settings, and the requests that prove them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.project import Project
from pipeline.config.requests import parse_requests
from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import (
    SCHEMA_LABEL,
    ReleaseImages,
    backup_digest,
    needs_of,
    push_references,
    same_build,
    source_of,
)
from pipeline.registry.reference import PARTS, split_digest
from pipeline.releases.model import Artifact
from pipeline.releases.records import read_json, write_json
from pipeline.system.git import Source
from pipeline.targets.common.difference import shipped_hashes

__all__ = ["Artifacts", "Kept"]

SETTINGS_DIGITS = 8
SOCKET_LABEL = "slipway.socket"
BESIDE = ("migrate", "backup")  # what is pulled beside the service; the edge is built here


@dataclass(frozen=True)
class Kept:
    """A release as it is recorded on this machine. `files`: name → content hash."""

    name: str
    images: ReleaseImages
    config: dict[str, str]
    source: Source
    revision: str | None
    requests: list[dict[str, Any]]
    files: dict[str, str]
    needs: list[str] = field(default_factory=list)
    socket: bool = False  # whether its replicas listen on BACKEND_SOCKET

    @property
    def artifact(self) -> Artifact:
        """The engine-neutral `Artifact` of this release."""
        requests = parse_requests(self.requests, f"release {self.name}")
        return Artifact(self.name, self.source, self.revision, requests, tuple(self.needs))


@dataclass(frozen=True)
class Artifacts:
    """The releases that are kept below `folder`; the names of their images begin with `prefix`."""

    project: Project
    folder: Path
    docker: Docker
    prefix: str

    def keep(
        self, images: ReleaseImages, config: Mapping[str, str], source: Source, *, digest: str | None = None
    ) -> Kept:
        """Record the release of `images` with `config`, and return it.

        Its name is the ID of the service's image, or the `digest` by which that was pulled. Where the image was kept
        with other settings before, `+` and eight digits of a hash of the new ones follow.
        """
        image = self.docker.image(images.backend)
        assert image is not None, images
        labels = image["Config"].get("Labels") or {}
        kept = Kept(
            name=self._name(digest or images.backend, config),
            images=images,
            config=dict(config),
            source=source,
            revision=labels.get(SCHEMA_LABEL) or None,
            requests=[spec.table() for spec in self.project.requests],
            # The working tree's files belong only to a release that was built from it.
            files={} if digest else shipped_hashes(self.project),
            needs=needs_of(labels),
            socket=SOCKET_LABEL in labels,
        )
        path = self._path(kept.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**asdict(kept), "images": vars(images), "source": vars(source)})
        return kept

    def knows(self, name: str) -> bool:
        """Return whether the release `name` is kept."""
        return bool(name) and self._path(name).exists()

    def find(self, name: str) -> Kept:
        """Return the release `name`.

        Raise `UsageError` where it is not kept here, `SlipwayError` where one of its images is not on this machine.
        """
        meta = read_json(self._path(name))
        if not meta:
            raise UsageError(
                f"release {name} is not kept here: only the last {self.project.retain} proved ones are (`*` in"
                " `nox -s releases`; `retain` in [tool.slipway]); check out its commit and deploy that"
            )
        images, source = ReleaseImages(**meta["images"]), Source(**meta["source"])
        # Not `backup`, which nobody waits for who is on the way back: who uses it, says so.
        for what, image in (("backend", images.backend), ("migrate", images.migrate)):
            if self.docker.image(image) is None:
                raise SlipwayError(
                    f"the {what} image {image} of release {name} is gone from this machine (`docker image prune`?):"
                    f" check out {source.commit or 'its source'} and deploy that"
                )
        meta.pop("migrations", None)  # of releases that were kept before the database recorded its migrations
        return Kept(**{**meta, "images": images, "source": source})

    def adopt(self, reference: str, repository: str | None, config: Mapping[str, str]) -> Kept:
        """Return the release of an image digest, `[REPOSITORY@]sha256:…`; pull it where it is not here.

        Raise `UsageError` where no repository is known, or where the migrations are those of another build.
        """
        named, digest = split_digest(reference)
        repository = named or repository
        if read_json(self._path(digest)):
            return self.find(digest)
        if not repository:
            raise UsageError(
                f"{digest} is not recorded here: say where to pull it from: REPOSITORY@{digest}, or IMAGE_REPOSITORY"
            )
        backend, labels = self._pull(f"{repository}@{digest}")
        pulled = {"backend": backend}
        for part, place in push_references(repository, digest, BESIDE).items():
            if part == "backup" and backup_digest(place) is None:
                continue
            pulled[part], beside = self._pull(place)
            if not same_build(labels, beside):  # a digest identifies an image; a tag may have been moved
                raise UsageError(
                    f"{place} is not of the release {digest}: its tag was moved. Check out"
                    f" {source_of(labels).commit or 'its source'} and run `IMAGE_REPOSITORY={repository} nox -s push`"
                )
        images = ReleaseImages(**pulled)
        for part, image in images.parts.items():
            self.docker.do("tag", image, f"{self.prefix}-{part}:{images.short}")
        return self.keep(images, config, source_of(labels), digest=digest)

    def _pull(self, place: str) -> tuple[str, dict[str, str]]:
        """Pull the image at `place`; return its ID and labels."""
        self.docker.do("pull", "--quiet", place, timeout=1800)
        image = self.docker.image(place)
        assert image is not None, place
        return image["Id"], image["Config"].get("Labels") or {}

    def prune(self, kept: set[str]) -> None:
        """Forget the releases not in `kept`, and remove the tags of their images."""
        known = {path.parent.name: read_json(path) for path in self.folder.glob("*/release.json")}
        needed = {meta["images"]["backend"] for meta in known.values() if meta.get("name") in kept}
        for folder, meta in known.items():
            if meta.get("name") in kept:
                continue
            if meta.get("images") and meta["images"]["backend"] not in needed:
                images = ReleaseImages(**meta["images"])
                for name in (f"{self.prefix}-{part}:{images.short}" for part in images.parts):
                    if self.docker.image(name):
                        self.docker.do("rmi", "--no-prune", name)
            shutil.rmtree(self.folder / folder)

    def forget_images(self) -> None:
        """Remove every name that this project gave an image, and those by which it pulled one."""
        known = [read_json(path) for path in self.folder.glob("*/release.json")]
        pulled = {name for meta in known if meta for name in self._pulled(meta["name"], meta["images"]["backend"])}
        self.docker.forget(*self.docker.names(*(f"{self.prefix}-{part}" for part in PARTS)), *sorted(pulled))

    def _pulled(self, release: str, backend: str) -> Iterator[str]:
        """Yield the names by which `adopt` pulled `release`, whose service has the image ID `backend`."""
        digest = release.partition("+")[0]
        for place in (self.docker.image(backend) or {}).get("RepoDigests") or ():
            repository, _, known = place.partition("@")
            if known == digest != backend:
                names = (place, *push_references(repository, digest, BESIDE).values())
                yield from (name for name in names if self.docker.image(name))

    def _name(self, digest: str, config: Mapping[str, str]) -> str:
        """Return `digest` for the first settings that an image is kept with, otherwise `digest` and their hash."""
        first = read_json(self._path(digest)).get("config", config)
        if first == dict(config):
            return digest
        text = json.dumps(dict(config), sort_keys=True)
        return f"{digest}+{hashlib.sha256(text.encode()).hexdigest()[:SETTINGS_DIGITS]}"

    def _path(self, name: str) -> Path:
        return self.folder / name.removeprefix("sha256:").replace("+", "-") / "release.json"
