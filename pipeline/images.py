"""The images of a release: built from the working tree, named by content, pushed by digest."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.docker import Docker, docker_problems, essence
from pipeline.errors import SlipwayError, UsageError
from pipeline.migrations import required_revision
from pipeline.model import Source
from pipeline.run import CommandFailed, run
from pipeline.settings import read_values
from pipeline.source import Change, last_change, remote_address

__all__ = [
    "SCHEMA_LABEL",
    "SHORT",
    "Images",
    "PushedImages",
    "ReleaseImages",
    "build_command",
    "push_references",
    "repository_problem",
    "same_build",
    "source_of",
]

BACKEND_INPUTS = ("backend", "docker/Dockerfile.backend", "docker/healthcheck.py", ".dockerignore",
                  "requirements/backend.txt", "requirements/migrate.txt", "requirements/uv.txt")  # fmt: skip
FRONTEND_INPUTS = ("docker/Dockerfile.frontend", "docker/edge", "docker/frontend", ".dockerignore")
SCHEMA_LABEL = "slipway.schema"
SHORT = 12  # hexadecimal digits of a digest in a tag, as docker shortens it
REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class ReleaseImages:
    """The two images of a release, as `sha256:` and 64 digits: image IDs, or digests where they were pushed."""

    backend: str
    migrate: str

    @property
    def short(self) -> str:
        """Twelve digits of the backend's: the tag of both."""
        return self.backend.removeprefix("sha256:")[:SHORT]


@dataclass(frozen=True)
class PushedImages:
    """The three images of a release in a registry: digests of their manifests in REPOSITORY."""

    repository: str
    backend: str
    migrate: str
    frontend: str

    def place(self, part: str) -> str:
        """Where the image of PART can be pulled."""
        return f"{self.repository}@{getattr(self, part)}"

    @property
    def references(self) -> ReleaseImages:
        """Where the two of the release can be pulled."""
        return ReleaseImages(self.place("backend"), self.place("migrate"))


@dataclass(frozen=True)
class Images:
    """Builds the images of the repository at `root`. `say` gets each command and what it said."""

    root: Path
    project: str  # PROJECT_NAME: the prefix of local images
    say: Callable[[str], None]

    def build(self) -> ReleaseImages:
        """Build `production` and `migrate`, and tag both with the short ID of the first."""
        backend = self._build("docker/Dockerfile.backend", "production", BACKEND_INPUTS)
        migrate = self._build("docker/Dockerfile.backend", "migrate", BACKEND_INPUTS)
        images = ReleaseImages(backend=backend, migrate=migrate)
        self._tag(backend, f"{self.project}-backend:{images.short}")
        self._tag(migrate, f"{self.project}-migrate:{images.short}")
        return images

    def build_frontend(self) -> str:
        """Build the edge with the page, tagged with its own short ID."""
        frontend = self._build("docker/Dockerfile.frontend", None, FRONTEND_INPUTS)
        self._tag(frontend, f"{self.project}-frontend:{frontend.removeprefix('sha256:')[:SHORT]}")
        return frontend

    def push(self, repository: str) -> PushedImages:
        """Build, and push all three to REPOSITORY."""
        problem = repository_problem(repository)
        if problem:
            raise UsageError(problem)
        images, frontend = self.build(), self.build_frontend()
        digest = self._push(images.backend, f"{repository}:{images.short}")
        others = push_references(repository, digest, images.migrate, frontend)
        return PushedImages(repository, digest, *(self._push(image, reference) for image, reference in others.items()))

    def _build(self, dockerfile: str, target: str | None, inputs: Sequence[str]) -> str:
        change = last_change(self.root, inputs)
        values = read_values(self.root)
        arguments = {
            "SOURCE_DATE_EPOCH": str(change.epoch),
            **labels(self.root, change, self.project),
            **({"PYTHON_VERSION": values["PYTHON_VERSION"]} if "PYTHON_VERSION" in values and target else {}),
        }
        log: list[str] = []

        def hear(line: str) -> None:
            (self.say if line.startswith("$ ") else log.append)(line)

        # BuildKit's own attestation would make each build another image; provenance is what CI attests.
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            ident = Path(folder) / "id"
            command = build_command(dockerfile, target, arguments, ident)
            try:
                run(command, say=hear, env=environment, cwd=self.root, timeout=TIMEOUT_SECONDS)
            except CommandFailed as error:
                for line in log:
                    self.say(line)
                problems = docker_problems(compose=False)
                raise SlipwayError(problems[0] if problems else f"{dockerfile}: {essence(error.output)}") from error
            return ident.read_text(encoding="utf-8").strip()

    def _tag(self, image: str, name: str) -> None:
        Docker(self.root, self.say).do("tag", image, name)

    def _push(self, image: str, reference: str) -> str:
        docker = Docker(self.root, self.say)
        docker.do("tag", image, reference)
        said = docker.do("push", reference, timeout=TIMEOUT_SECONDS)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        if not found:
            raise SlipwayError(f"docker push {reference}: it named no digest: {essence(said)}")
        return found[1]


def build_command(dockerfile: str, target: str | None, arguments: dict[str, str], ident: Path) -> list[str]:
    """The command line that builds TARGET of DOCKERFILE and writes the image's ID to IDENT.

    Not `--quiet`, which prints the ID: of a step that fails it does not tell what the step said.
    """
    given = [word for name, value in sorted(arguments.items()) for word in ("--build-arg", f"{name}={value}")]
    named = ["--target", target] if target else []
    return [
        "docker",
        "build",
        "--progress",
        "plain",
        "--iidfile",
        str(ident),
        "--file",
        dockerfile,
        *named,
        *given,
        ".",
    ]


def labels(root: Path, change: Change, title: str) -> dict[str, str]:
    """The build arguments that the OCI labels are made from: those of the last CHANGE, so that the same content gives
    the same image whatever was committed since.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    return {
        "CREATED": datetime.fromtimestamp(change.epoch, UTC).isoformat().replace("+00:00", "Z"),
        "REVISION": f"{change.commit or 'unknown'}{'-dirty' if change.dirty else ''}",
        "SCHEMA": required_revision(root) or "",
        "SOURCE": remote_address(root) or "",
        "TITLE": title,
        "VERSION": str(project.get("version", "0")),
    }


def source_of(image_labels: Mapping[str, str]) -> Source:
    """What the labels of an image say that it was built from."""
    revision = image_labels.get("org.opencontainers.image.revision", "")
    commit = revision.removesuffix("-dirty")
    return Source(commit=None if commit in ("", "unknown") else commit, dirty=revision.endswith("-dirty"))


def same_build(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether the labels of two images of a release say that they were built from the same source."""
    names = [f"org.opencontainers.image.{name}" for name in ("created", "revision", "version")]
    return all(one.get(name) == other.get(name) for name in (*names, SCHEMA_LABEL))


def push_references(repository: str, digest: str, migrate: str, frontend: str) -> dict[str, str]:
    """Where the other images of the backend with DIGEST go: image ID → reference, found again from the digest."""
    short = digest.removeprefix("sha256:")[:SHORT]
    return {migrate: f"{repository}:migrate-{short}", frontend: f"{repository}:frontend-{short}"}


def repository_problem(repository: str) -> str | None:
    """What is wrong with the name of a repository, None for a good one."""
    if not repository:
        return "IMAGE_REPOSITORY: not set: where to push, for example IMAGE_REPOSITORY=ghcr.io/owner/name"
    if not REPOSITORY.fullmatch(repository):
        fix = repository.lower() if REPOSITORY.fullmatch(repository.lower()) else "ghcr.io/owner/name"
        return f"IMAGE_REPOSITORY: `{repository}` is no name of a repository (lower case, no tag): for example {fix}"
    return None
