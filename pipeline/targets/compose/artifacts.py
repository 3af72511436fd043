"""The releases of the compose target: two images, the settings that go with them, and what proves them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config.project import Project
from pipeline.config.requests import parse_requests
from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import SCHEMA_LABEL, SHORT, ReleaseImages, same_build, source_of
from pipeline.registry.reference import split_digest
from pipeline.releases.model import Artifact
from pipeline.releases.records import read_json, write_json
from pipeline.system.git import Source
from pipeline.targets.common.difference import shipped_hashes

__all__ = ["Artifacts", "Kept"]

SETTINGS_DIGITS = 8


@dataclass(frozen=True)
class Kept:
    """A release as it is kept. `files`: name → content hash."""

    name: str
    images: ReleaseImages
    config: dict[str, str]
    source: Source
    revision: str | None
    requests: list[dict[str, Any]]
    files: dict[str, str]

    @property
    def artifact(self) -> Artifact:
        """It as the story knows it."""
        requests = parse_requests(self.requests, f"release {self.name}")
        return Artifact(self.name, self.source, self.revision, requests)


@dataclass(frozen=True)
class Artifacts:
    """The releases that are kept below `folder`; `prefix` is that of their images' names."""

    project: Project
    folder: Path
    docker: Docker
    prefix: str

    def keep(
        self, images: ReleaseImages, config: Mapping[str, str], source: Source, *, digest: str | None = None
    ) -> Kept:
        """Note the release of IMAGES with CONFIG, and name it: the image's ID, or the DIGEST that it was pulled by, and
        where that was kept with other settings before, eight digits of these behind it.
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
            # The working tree's are those of what was built from it, and of nothing else.
            files={} if digest else shipped_hashes(self.project),
        )
        path = self._path(kept.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**asdict(kept), "images": vars(images), "source": vars(source)})
        return kept

    def knows(self, name: str) -> bool:
        """Whether the release NAME is kept."""
        return bool(name) and self._path(name).exists()

    def find(self, name: str) -> Kept:
        """The release NAME; both its images must be on this machine."""
        meta = read_json(self._path(name))
        if not meta:
            raise UsageError(
                f"release {name} is not kept here: only the last {self.project.retain} proved ones are (`*` in"
                " `nox -s releases`; `retain` in [tool.slipway]); check its commit out and deploy that"
            )
        images, source = ReleaseImages(**meta["images"]), Source(**meta["source"])
        for what, image in vars(images).items():
            if self.docker.image(image) is None:
                raise SlipwayError(
                    f"the {what} image {image} of release {name} is gone from this machine (`docker image prune`?):"
                    f" check out {source.commit or 'its source'} and deploy that"
                )
        meta.pop("migrations", None)  # of releases that were kept before the database knew
        return Kept(**{**meta, "images": images, "source": source})

    def adopt(self, reference: str, repository: str | None, config: Mapping[str, str]) -> Kept:
        """The release of an image digest, `[REPOSITORY@]sha256:…`, pulled where it is not here."""
        named, digest = split_digest(reference)
        repository = named or repository
        if read_json(self._path(digest)):
            return self.find(digest)
        if not repository:
            raise UsageError(
                f"{digest} is not recorded here: name where it is, REPOSITORY@{digest}, or IMAGE_REPOSITORY"
            )
        short = digest.removeprefix("sha256:")[:SHORT]
        backend, labels = self._pull(f"{repository}@{digest}")
        tagged = f"{repository}:migrate-{short}"
        migrate, beside = self._pull(tagged)
        if not same_build(labels, beside):  # a digest says what it is, a tag says what somebody wanted
            raise UsageError(
                f"{tagged} is not of the release {digest}: its tag was moved. Check"
                f" {source_of(labels).commit or 'its source'} out and `IMAGE_REPOSITORY={repository} nox -s push`"
            )
        images = ReleaseImages(backend=backend, migrate=migrate)
        self.docker.do("tag", images.backend, f"{self.prefix}-backend:{images.short}")
        self.docker.do("tag", images.migrate, f"{self.prefix}-migrate:{images.short}")
        return self.keep(images, config, source_of(labels), digest=digest)

    def _pull(self, place: str) -> tuple[str, dict[str, str]]:
        """The ID and the labels of the image at PLACE, fetched."""
        self.docker.do("pull", "--quiet", place, timeout=1800)
        image = self.docker.image(place)
        assert image is not None, place
        return image["Id"], image["Config"].get("Labels") or {}

    def prune(self, kept: set[str]) -> None:
        """Forget the releases not KEPT, with the tags of their images."""
        known = {path.parent.name: read_json(path) for path in self.folder.glob("*/release.json")}
        needed = {meta["images"]["backend"] for meta in known.values() if meta.get("name") in kept}
        for folder, meta in known.items():
            if meta.get("name") in kept:
                continue
            if meta.get("images") and meta["images"]["backend"] not in needed:
                short = ReleaseImages(**meta["images"]).short
                for name in (f"{self.prefix}-backend:{short}", f"{self.prefix}-migrate:{short}"):
                    if self.docker.image(name):
                        self.docker.do("rmi", "--no-prune", name)
            shutil.rmtree(self.folder / folder)

    def _name(self, digest: str, config: Mapping[str, str]) -> str:
        """The digest alone for the first settings that an image is kept with."""
        first = read_json(self._path(digest)).get("config", config)
        if first == dict(config):
            return digest
        text = json.dumps(dict(config), sort_keys=True)
        return f"{digest}+{hashlib.sha256(text.encode()).hexdigest()[:SETTINGS_DIGITS]}"

    def _path(self, name: str) -> Path:
        return self.folder / name.removeprefix("sha256:").replace("+", "-") / "release.json"
