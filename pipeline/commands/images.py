"""The verbs of the command line about images and what is in them; see `pipeline.commands.deploys`."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from pipeline.config.place_of_data import shell_problems
from pipeline.config.project import Environment, Project
from pipeline.config.settings import read_values, variables
from pipeline.engines.docker import docker_problems
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import Images, image_repository, repository_problem
from pipeline.images.copy import copy_release
from pipeline.images.pins import current_digests, write_pins
from pipeline.registry.proofs import newest_proved
from pipeline.system.progress import Progress

__all__ = ["audit", "build", "copy", "pins", "proved", "push", "scan", "sign", "verify_image"]

log = logging.getLogger(__name__)

Result = tuple[int, Any]


def build(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Build the images, and print the backend's ID as the last line."""
    images = _images(project, progress)
    built, frontend = images.build(), images.build_frontend()
    log.info(f"backend   {built.backend}")
    log.info(f"migrate   {built.migrate}")
    log.info(f"frontend  {frontend}")
    sys.stdout.write(f"{built.backend}\n")
    return 0, None


def push(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Build and push the images, and print the digest of the backend's as the last line."""
    repository = image_repository()
    digest = _images(project, progress).push(repository).backend
    log.info(f"{repository}@{digest}")
    sys.stdout.write(f"{digest}\n")
    return 0, None


def scan(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Write the SBOMs of a release, and check what they list for known vulnerabilities."""
    from pipeline.supply import steps

    with progress.stage("scan"):
        audit = not options.sbom_only
        steps.scan(project, options.reference, audit=audit)
    return 0, None


def audit(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Check the packages that requirements/ pins for known vulnerabilities."""
    from pipeline.supply import steps

    with progress.stage("audit"):
        steps.audit(project)
    return 0, None


def sign(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Sign a release, with its SBOMs and its provenance."""
    from pipeline.supply import steps

    with progress.stage("sign"):
        images = steps.sign(project, options.reference)
    log.info(f"signed {', '.join(images.places)}")
    return 0, None


def verify_image(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Verify that a release is signed by whom it should be, with its SBOMs and its provenance."""
    from pipeline.supply import steps

    with progress.stage("verify"):
        who = steps.verify(project, options.reference, options.env)
    log.info(f"{options.reference}: signature, provenance and SBOM hold: signed by {who}")
    return 0, None


def copy(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Copy the images of a release to another repository, and print their digest as the last line."""
    digest = copy_release(options.release, options.repository)
    sys.stdout.write(f"{digest}\n")
    return 0, None


def proved(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Print the digest that was proved last; the registry is asked, so no access to a cluster is needed."""
    env = project.environment(options.env)
    repository = _repository(env)
    proof = newest_proved(repository, env.name)
    if proof is None:
        raise SlipwayError(f"{repository}: nothing was proved in {env.name} yet: `nox -s deploy -- {env.name}` first")
    log.info(f"{proof.reference}, proved {proof.finished:%Y-%m-%d %H:%M %Z}")
    sys.stdout.write(f"{proof.digest}\n")
    return 0, None


def pins(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Compare the digests of base images with their registries', and write them with `--write`."""
    defaults = {variable.name: variable.default for variable in variables()}
    current = current_digests(project.root, {**defaults, **read_values(project.root)})
    stale = [(pin, digest) for pin, digest in current if pin.digest != digest]
    for pin, digest in current:
        log.info(f"{pin.file}: {pin.name} is {digest}{'' if pin.digest == digest else f', pinned: {pin.digest}'}")
    if options.write:
        changed = write_pins(project.root, stale)
        log.info(f"wrote {', '.join(changed)}" if changed else "every base image is pinned already")
    elif stale:
        raise SlipwayError(
            f"{len(stale)} base images are not pinned to the current digest of their tag: `nox -s pins -- --write`"
        )
    return 0, None


def _repository(env: Environment) -> str:
    repository = image_repository() or env.repository or ""
    problem = repository_problem(repository)
    if problem:
        raise UsageError(problem)
    return repository


def _images(project: Project, progress: Progress) -> Images:
    problems = docker_problems(compose=False)
    if problems:
        raise UsageError(*problems)
    for line in shell_problems(project.root):
        log.warning(line)
    return Images(project.root, read_values(project.root).get("PROJECT_NAME", project.name))
