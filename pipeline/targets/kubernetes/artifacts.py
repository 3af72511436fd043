"""Where a release of the kubernetes target comes from: it is built and pushed, or found in the registry."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config.project import KubernetesEnvironment, Project
from pipeline.config.settings import needed_secrets
from pipeline.engines.docker import docker_problems
from pipeline.engines.kubectl import Object
from pipeline.errors import UsageError
from pipeline.images.build import (
    SCHEMA_LABEL,
    Images,
    PushedImages,
    find_pushed,
    image_repository,
    needs_of,
    repository_problem,
    source_of,
)
from pipeline.images.promotion import admit
from pipeline.proof.report import Report, TrafficReport
from pipeline.registry.image import image_labels
from pipeline.registry.proofs import VERDICTS, ProofCounts, ProofFacts, attach_proof
from pipeline.registry.reference import is_digest
from pipeline.releases.migrations import required_revision
from pipeline.system.git import read_source
from pipeline.targets.common.difference import shipped_hashes
from pipeline.targets.kubernetes.release import KeptReleases, Release, render

__all__ = ["Artifacts", "proof_facts"]


@dataclass(frozen=True)
class Artifacts:
    """The releases of an environment, built or found."""

    project: Project
    env: KubernetesEnvironment
    releases: KeptReleases

    @property
    def overlay(self) -> Path:
        """The folder of the environment's overlay."""
        return self.project.root / self.env.overlay

    def render(self, images: PushedImages) -> tuple[str, list[Object]]:
        """Return the name and the objects of the overlay with `images`."""
        return render(self.overlay, self.env.namespace, images, self.releases, keep=self.env.kept.keep)

    def build(self, title: str) -> Release:
        """Build and push the images of the working tree; return them with the manifests that go with their digests."""
        repository, problems = self.repository(), docker_problems(compose=False)
        if problems:
            raise UsageError(*problems)
        root = self.project.root
        pushed = Images(root, title).push(repository)
        name, objects = self.render(pushed)
        release = Release(
            name=name,
            images=pushed,
            source=read_source(root),
            revision=required_revision(root),
            requests=[spec.table() for spec in self.project.requests],
            files=shipped_hashes(self.project),
            manifests=objects,
            needs=needed_secrets(),
        )
        self.releases.keep(release)
        return release

    def adopt(self, reference: str | None) -> Release | None:
        """Return the release of an image digest in the registry, with the manifests of the working tree.

        Where the environment is promoted to, admit only a digest that was proved where it promotes from, by default the
        newest. Return None where `reference` is not a digest, or where it is None and nothing is promoted.
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
            files={},  # the working tree's hashes belong only to what was built from it
            manifests=objects,
            needs=needs_of(labels),
        )
        self.releases.keep(release)
        return release

    def attest(self, report: Report) -> None:
        """Attach the verdict to the digest in its registry, for whoever promotes from here."""
        name = report.release or ""
        if report.verdict not in VERDICTS or not self.releases.knows(name):
            return
        images = self.releases.find(name).images
        attach_proof(images.place("backend"), proof_facts(report), images=images.others)

    def repository(self) -> str:
        """Return where the images are: `IMAGE_REPOSITORY`, or the `repository` of the environment's table.

        Raise `UsageError` where that is not a usable repository.
        """
        repository = image_repository() or self.env.repository or ""
        problem = repository_problem(repository)
        if problem:
            raise UsageError(f"{problem}; or `repository` in [tool.slipway.environments.{self.env.name}]")
        return repository

    def _found(self, reference: str) -> PushedImages:
        """Return the images of the release whose backend is `reference` (`[REPOSITORY@]sha256:…`)."""
        return find_pushed(reference if "@" in reference else f"{self.repository()}@{reference}")


def proof_facts(report: Report) -> ProofFacts:
    """Return the parts of `report` that are the same for every reader: no addresses, requests or their answers."""
    assert report.finished  # None is of a deploy that was killed, which nobody attests
    return ProofFacts(
        environment=report.environment,
        target=report.target,
        number=report.number,
        release=report.release,
        commit=report.commit,
        dirty=report.dirty,
        verdict=report.verdict,
        started=report.started,
        finished=report.finished,
        traffic=_counts(report.traffic) if report.traffic else None,
    )


def _counts(traffic: TrafficReport) -> ProofCounts:
    return ProofCounts(
        sent=traffic.sent,
        ok=traffic.ok,
        failed=traffic.failed,
        baseline=traffic.baseline,
        latency_ms=asdict(traffic.latency_ms) if traffic.latency_ms else None,
        writes_acknowledged=traffic.writes_acknowledged,
        writes_lost=traffic.writes_lost,
    )
