"""The verbs about images and what is in them, from `nox -s build` to `nox -s proved`."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace

from pipeline.commands import Verbs
from pipeline.config.place_of_data import shell_problems
from pipeline.config.project import KubernetesEnvironment, Project
from pipeline.config.settings import overridden, read_values, variables
from pipeline.engines.docker import docker_problems
from pipeline.errors import SlipwayError, UsageError
from pipeline.images.build import Images, image_repository, repository_problem
from pipeline.images.copy import copy_release
from pipeline.images.pins import current_digests, write_pins
from pipeline.registry.proofs import newest_proved
from pipeline.supply import steps
from pipeline.system.progress import Progress

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)


def add_parsers(verbs: Verbs) -> None:
    verbs.add("build", build, "build the images")
    add = verbs.add("pins", pins, "compare the digests of base images with their registries'").add_argument
    add("--write", action="store_true", help="pin them")
    verbs.add("push", push, "build the images and push them to IMAGE_REPOSITORY")
    scanning = verbs.add("scan", scan, "write the SBOMs of a release, and check it for known vulnerabilities")
    scanning.add_argument("--sbom-only", action="store_true", help="only write the SBOMs")
    verbs.add("audit", audit, "check the packages that requirements/ pins for known vulnerabilities")
    signing = verbs.add("sign", sign, "sign a release, its SBOMs and its provenance")
    verifying = verbs.add("verify-image", verify_image, "check that a release is signed as it should be")
    verifying.add_argument("--env", metavar="ENV", help="check what this environment's `verify` demands")
    for add in (scanning.add_argument, signing.add_argument, verifying.add_argument):
        add("reference", type=str.lower, metavar="REPOSITORY@sha256:…", help="the digest that `push` printed")
    add = verbs.add("copy", copy, "copy the images of a release to another repository, byte for byte").add_argument
    add("release", metavar="REPOSITORY@DIGEST", help="what `push` printed")
    add("repository", metavar="REPOSITORY", help="the repository to copy to")
    verbs.add("proved", proved, "print the digest that was proved last, as its registry knows it", env=True)


def build(project: Project, *_: object) -> None:
    """Build the images, and print the backend's ID as the last line."""
    images = _images(project)
    built, frontend = images.build(), images.build_frontend()
    for part, image in {**built.parts, "frontend": frontend}.items():
        log.info(f"{part:8}  {image}")
    sys.stdout.write(f"{built.backend}\n")


def push(project: Project, *_: object) -> None:
    """Build and push the images, and print the digest of the backend's as the last line."""
    repository = image_repository()
    digest = _images(project).push(repository).backend
    log.info(f"{repository}@{digest}")
    sys.stdout.write(f"{digest}\n")


def scan(project: Project, options: Namespace, progress: Progress) -> None:
    """Write the SBOMs of a release, and check what they list for known vulnerabilities."""
    with progress.stage("scan"):
        steps.scan(project, options.reference, audit=not options.sbom_only)


def audit(project: Project, _: Namespace, progress: Progress) -> None:
    """Check the packages that requirements/ pins for known vulnerabilities."""
    with progress.stage("audit"):
        steps.audit(project)


def sign(project: Project, options: Namespace, progress: Progress) -> None:
    """Sign a release, with its SBOMs and its provenance."""
    with progress.stage("sign"):
        images = steps.sign(project, options.reference)
    log.info(f"signed {', '.join(images.places)}")


def verify_image(project: Project, options: Namespace, progress: Progress) -> None:
    """Verify that a release is signed by whom it should be, with its SBOMs and its provenance."""
    with progress.stage("verify"):
        who = steps.verify(project, options.reference, options.env)
    log.info(f"{options.reference}: signature, provenance and SBOM hold: signed by {who}")


def copy(_project: Project, options: Namespace, _: Progress) -> None:
    """Copy the images of a release to another repository, and print their digest as the last line."""
    digest = copy_release(options.release, options.repository)
    sys.stdout.write(f"{digest}\n")


def proved(project: Project, options: Namespace, _: Progress) -> None:
    """Print the digest that was proved last; the registry is asked, so no access to a cluster is needed."""
    env = project.environment(options.env)
    named = env.repository if isinstance(env, KubernetesEnvironment) else None
    repository = image_repository() or named or ""
    if problem := repository_problem(repository):
        raise UsageError(problem)
    proof = newest_proved(repository, env.name)
    if proof is None:
        raise SlipwayError(f"{repository}: nothing was proved in {env.name} yet: `nox -s deploy -- {env.name}` first")
    log.info(f"{proof.reference}, proved {proof.finished:%Y-%m-%d %H:%M %Z}")
    sys.stdout.write(f"{proof.digest}\n")


def pins(project: Project, options: Namespace, _: Progress) -> None:
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


def _images(project: Project) -> Images:
    if problems := docker_problems(compose=False):
        raise UsageError(*problems)
    taken = overridden(project.root)
    for line in [*shell_problems(project.root), *(taken[name] for name in ("PYTHON_VERSION",) if name in taken)]:
        log.warning(line)
    return Images(project.root, read_values(project.root).get("PROJECT_NAME", project.name))
