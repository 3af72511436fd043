"""`nox -s scan`, `sign` and `verify-image`: what each does with the release that a digest names."""

from __future__ import annotations

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
from pipeline.supply.gate import Finding, judge
from pipeline.supply.provenance import provenance
from pipeline.supply.sbom import Sbom, make_sboms, python_packages, too_large
from pipeline.supply.verify import verification_problems
from pipeline.system.git import Source, read_source, remote_address

__all__ = ["audit", "scan", "sign", "verify"]

Say = Callable[[str], None]


def scan(project: Project, reference: str, *, audit: bool, say: Say, warn: Say) -> None:
    """Write the SBOMs of the release REFERENCE, and let it pass or not. Raises `SlipwayError` with a line for each
    finding that stops it. Without AUDIT nothing is judged, which is said.
    """
    sboms = _sboms(project, find_pushed(reference), say)
    for one in sboms:
        say(f"{one.reference}: {one.cyclonedx.relative_to(project.root)}, {one.spdx.name}")
    if not audit:
        warn("--sbom-only: nothing was judged")
        return
    # What the images hold, and not what a lock promises: what a base image brings ships, too.
    _gate(project, [*ask_pip_audit(python_packages(sboms), say), *ask_grype(sboms, warn)], reference, warn)


def audit(project: Project, *, say: Say, warn: Say) -> None:
    """Let the packages of requirements/ pass, or not: what tests, lints and deploys ships nowhere, and runs with every
    right. Raises `SlipwayError` as `scan` does.
    """
    packages = locked_packages(project.root)
    _gate(project, ask_pip_audit(packages, say), "requirements/", warn)
    say(f"nothing is known against the {len(packages)} packages of requirements/ that is not allowed")


def _gate(project: Project, findings: Iterable[Finding], what: str, warn: Say) -> None:
    refused, passed, stale = judge(findings, project.allow, datetime.now(UTC).date())
    for line in (*passed, *stale):
        warn(line)
    if refused:
        hint = "mend it, or allow it for a while and a reason: docs/9-supply-chain.md#the-gate"
        raise SlipwayError(*refused, f"{what}: {len(refused)} findings stop it: {hint}")


def sign(project: Project, reference: str, *, say: Say) -> PushedImages:
    """Sign the images of the release REFERENCE, and attest their SBOMs and where they come from."""
    environment = os.environ
    who, images = signer(environment), find_pushed(reference)
    source = _source(project.root, images, environment)
    sboms = _sboms(project, images, say)
    problems = [problem for one in sboms if who.key is None and (problem := too_large(one))]
    if problems:
        raise SlipwayError(*problems)
    cosign = Cosign(images.place("backend"), say)
    # What is signed first is what is worth least alone: a release that is signed has all of it.
    for one in sboms:
        cosign.attest(who, one.reference, CYCLONEDX, one.cyclonedx)
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        path = Path(folder) / "provenance.json"
        path.write_bytes(written(provenance(images, source, remote_address(project.root), environment)))
        cosign.attest(who, images.place("backend"), PROVENANCE, path)
    cosign.sign(who, images.places)
    return images


def verify(project: Project, reference: str, env: str | None, *, say: Say) -> str:
    """Verify the release REFERENCE by what the environment ENV demands; without one, as this place would sign it.

    Who signed it, in words. Raises `SlipwayError` with a line for each thing that does not hold.
    """
    policy = project.environment(env).verify if env else own_policy(os.environ)
    if policy is None:
        raise UsageError(f"pyproject.toml [tool.slipway.environments.{env}]: no `verify`: docs/9-supply-chain.md")
    problems = verification_problems(find_pushed(reference), policy, say)
    if problems:
        raise SlipwayError(*problems)
    return policy.signer


def _sboms(project: Project, images: PushedImages, say: Say) -> list[Sbom]:
    return make_sboms(images.places, project.root / ".slipway/supply", say)


def _source(root: Path, images: PushedImages, environment: Mapping[str, str]) -> Source:
    """What the working tree at ROOT is, where IMAGES were built from it: a provenance says nothing that is not seen."""
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
    # Of what went into the images, by their own word: a file beside it makes nothing dirty.
    return Source(head, dirty=any(source_of(image_labels(place)).dirty for place in images.places))
