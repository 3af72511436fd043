"""How a release of the kubernetes target comes to be: built and pushed, or found in the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.project import Environment, Project
from pipeline.engines.docker import docker_problems
from pipeline.engines.kubectl import Object
from pipeline.errors import UsageError
from pipeline.images.build import (
    SCHEMA_LABEL,
    Images,
    PushedImages,
    find_pushed,
    image_repository,
    repository_problem,
    source_of,
)
from pipeline.images.promotion import admit
from pipeline.registry.image import image_labels
from pipeline.registry.proofs import VERDICTS, attach_proof
from pipeline.registry.reference import is_digest
from pipeline.releases.migrations import required_revision
from pipeline.system.git import read_source
from pipeline.targets.common.difference import shipped_hashes
from pipeline.targets.kubernetes.release import Release, Releases, render

__all__ = ["Artifacts"]


@dataclass(frozen=True)
class Artifacts:
    """The releases of an environment; `folder` is where kustomize works, `say` gets each command."""

    project: Project
    env: Environment
    folder: Path
    releases: Releases
    say: Callable[[str], None]

    @property
    def overlay(self) -> Path:
        """The overlay of the environment."""
        return self.project.root / str(self.env.overlay)

    def render(self, images: PushedImages) -> tuple[str, list[Object]]:
        """The name and the objects of the overlay with IMAGES."""
        return render(self.folder, self.overlay, str(self.env.namespace), images, self.releases)

    def build(self, title: str) -> Release:
        """The working tree: its images, pushed, with the manifests that go with their digests."""
        repository, problems = self.repository(), docker_problems(compose=False)
        if problems:
            raise UsageError(*problems)
        root = self.project.root
        pushed = Images(root, title, self.say).push(repository)
        name, objects = self.render(pushed)
        release = Release(
            name=name,
            images=pushed,
            source=read_source(root),
            revision=required_revision(root),
            requests=[spec.table() for spec in self.project.requests],
            files=shipped_hashes(self.project),
            manifests=objects,
        )
        self.releases.keep(release)
        return release

    def adopt(self, reference: str | None) -> Release | None:
        """An image digest of the registry, with the manifests of the working tree; where the environment is promoted
        to, only one that was proved where it promotes from, and the newest by default.
        """
        promoted = self.env.promote_from is not None
        if (reference is None and not promoted) or (reference is not None and not is_digest(reference)):
            return None
        proof = admit(self.env, reference, repository=self.repository()) if promoted else None
        images = PushedImages(proof.repository, proof.digest, **proof.images) if proof else self._found(str(reference))
        labels = image_labels(images.place("backend"))
        name, objects = self.render(images)
        release = Release(
            name=name,
            images=images,
            source=source_of(labels),
            revision=labels.get(SCHEMA_LABEL) or None,
            requests=[spec.table() for spec in self.project.requests],
            files={},  # the working tree's are those of what was built from it, and of nothing else
            manifests=objects,
        )
        self.releases.keep(release)
        return release

    def attest(self, report: Mapping[str, Any]) -> None:
        """Attach the verdict to the digest in its registry, for who promotes from here."""
        name = report["release"]
        if report["verdict"] not in VERDICTS or not self.releases.knows(name):
            return
        images = self.releases.find(name).images
        others = {"migrate": images.migrate, "frontend": images.frontend}
        attach_proof(images.place("backend"), report, images=others)

    def repository(self) -> str:
        """Where the images are: IMAGE_REPOSITORY, or what the environment's table says."""
        repository = image_repository() or self.env.repository or ""
        problem = repository_problem(repository)
        if problem:
            raise UsageError(f"{problem}; or `repository` in [tool.slipway.environments.{self.env.name}]")
        return repository

    def _found(self, reference: str) -> PushedImages:
        """The images of the release whose backend is REFERENCE (`[REPOSITORY@]sha256:…`)."""
        return find_pushed(reference if "@" in reference else f"{self.repository()}@{reference}")
