"""The steps of `nox -s scan`, `audit`, `sign` and `verify-image`, for the release that a digest names."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pipeline.config.policy import own_policy
from pipeline.config.project import Project
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import PushedImages, built_from, find_pushed, source_of
from pipeline.registry.image import image_labels
from pipeline.registry.repository import written
from pipeline.supply.audit import ask_grype, ask_pip_audit, locked_packages
from pipeline.supply.cosign import CYCLONEDX, PROVENANCE, Cosign, signer
from pipeline.supply.gate import Vulnerability, judge_vulnerabilities
from pipeline.supply.provenance import provenance
from pipeline.supply.sbom import Sbom, make_sboms, python_packages, too_large
from pipeline.supply.verify import verification_problems
from pipeline.system.git import Source, read_source, remote_address

__all__ = ["audit", "scan", "sign", "verify"]

log = logging.getLogger(__name__)

Say = Callable[[str], None]


def scan(project: Project, reference: str, *, audit: bool) -> None:
    """Write the SBOMs of the release `reference`, and let it pass or not.

    Raise `SlipwayError` with a line for each finding that stops it. Without `audit`, warn that nothing is judged.
    """
    sboms = _sboms(project, find_pushed(reference))
    for sbom in sboms:
        log.info(f"{sbom.reference}: {sbom.cyclonedx.relative_to(project.root)}, {sbom.spdx.name}")
    if not audit:
        log.warning("--sbom-only: nothing was judged")
        return
    # Judge what the images contain and not what a lock promises: what a base image brings ships, too.
    _gate(project, [*ask_pip_audit(python_packages(sboms)), *ask_grype(sboms)], reference)


def audit(project: Project) -> None:
    """Let the packages of requirements/ pass, or not. Raise `SlipwayError` as `scan` does."""
    # The packages that test, lint and deploy are not shipped, but run with every right.
    packages = locked_packages(project.root)
    _gate(project, ask_pip_audit(packages), "requirements/")
    log.info(f"the {len(packages)} packages of requirements/ have no known vulnerability that is not allowed")


def _gate(project: Project, findings: Iterable[Vulnerability], what: str) -> None:
    refused, passed, stale = judge_vulnerabilities(findings, project.allow, datetime.now(UTC).date())
    for line in (*passed, *stale):
        log.warning(line)
    if refused:
        hint = "fix it, or allow it for some time with a reason: docs/9-supply-chain.md#the-gate"
        raise SlipwayError(*refused, f"{what}: {len(refused)} findings stop it: {hint}")


def sign(project: Project, reference: str) -> PushedImages:
    """Sign the images of the release `reference`, and attest their SBOMs and their origin. Return the images.

    Raise `UsageError` where nobody can sign here or the images were not built from this working tree, and
    `SlipwayError` where an SBOM is too large for the public log or cosign refuses.
    """
    environment = os.environ
    who, images = signer(environment), find_pushed(reference)
    source = _source(project.root, images, environment)
    sboms = _sboms(project, images)
    problems = [problem for sbom in sboms if who.key is None and (problem := too_large(sbom))]
    if problems:
        raise SlipwayError(*problems)
    cosign = Cosign(images.place("backend"))
    # The part that is worth least alone is signed first, so that a signed release has all parts.
    for sbom in sboms:
        cosign.attest(who, sbom.reference, CYCLONEDX, sbom.cyclonedx)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "provenance.json"
        path.write_bytes(written(provenance(images, source, remote_address(project.root), environment)))
        cosign.attest(who, images.place("backend"), PROVENANCE, path)
    cosign.sign(who, images.places)
    return images


def verify(project: Project, reference: str, env: str | None) -> str:
    """Verify the release `reference` by what the environment `env` demands; return in words who signed it.

    Without `env`, verify it as this place would sign it. Raise `SlipwayError` with a line for each thing that does not
    hold, and `UsageError` where the environment has no `verify`.
    """
    policy = project.environment(env).verify if env else own_policy(os.environ)
    if policy is None:
        raise UsageError(f"pyproject.toml [tool.slipway.environments.{env}]: no `verify`: docs/9-supply-chain.md")
    problems = verification_problems(find_pushed(reference), policy)
    if problems:
        raise SlipwayError(*problems)
    return policy.signer


def _sboms(project: Project, images: PushedImages) -> list[Sbom]:
    return make_sboms(images.places, project.root / ".slipway/supply")


def _source(root: Path, images: PushedImages, environment: Mapping[str, str]) -> Source:
    """Return the source of the working tree at `root`. Raise `UsageError` where `images` were not built from it."""
    # A provenance must not claim anything that its signer does not see.
    labels, here = image_labels(images.place("backend")), built_from(root)
    made = labels.get("org.opencontainers.image.revision", "unknown")
    if made != here:
        raise UsageError(
            f"{images.place('backend')}: built from {made}, and this working tree is {here}: sign it where it was"
            " built (the same checkout, as deep)"
        )
    head, commit = read_source(root).commit, environment.get("GITHUB_SHA")
    if environment.get("GITHUB_ACTIONS") and commit != head:
        raise UsageError(f"GITHUB_SHA is {commit}, and this working tree is {head}: check out what runs")
    # Dirty is what went into the images, by their own labels: a changed file beside it does not make them dirty.
    return Source(head, dirty=any(source_of(image_labels(place)).dirty for place in images.places))
