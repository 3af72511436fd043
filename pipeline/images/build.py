"""The images of a release: built from the working tree, named by content, pushed by digest."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.config.settings import needed_secrets, read_values
from pipeline.engines.docker import Docker, docker_problems, essence
from pipeline.errors import SlipwayError, UsageError
from pipeline.registry.connection import RegistryLacks
from pipeline.registry.image import image_labels, resolve
from pipeline.registry.reference import PARTS, parse_reference
from pipeline.registry.repository import Repository
from pipeline.releases.migrations import required_revision
from pipeline.releases.model import SHORT
from pipeline.system.files import write_whole
from pipeline.system.git import Change, Source, last_change, remote_address
from pipeline.system.place import state_folder
from pipeline.system.run import CommandFailed, run

__all__ = [
    "SCHEMA_LABEL",
    "Images",
    "PushedImages",
    "ReleaseImages",
    "backup_digest",
    "build_command",
    "built_from",
    "find_pushed",
    "image_repository",
    "needs_of",
    "push_references",
    "repository_problem",
    "same_build",
    "short_digest",
    "source_of",
]

log = logging.getLogger(__name__)

BACKEND_INPUTS = ("backend", "docker/Dockerfile.backend", "docker/healthcheck.py", ".dockerignore",
                  "requirements/backend.txt", "requirements/backup.txt", "requirements/migrate.txt",
                  "requirements/uv.txt")  # fmt: skip
FRONTEND_INPUTS = ("docker/Dockerfile.frontend", "docker/edge", "docker/frontend", ".dockerignore")
PROXIES = [form for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") for form in (name, name.lower())]
INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
SCHEMA_LABEL = "slipway.schema"
NEEDS_LABEL = "slipway.needs"
REPOSITORY = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+")
PLATFORMS = re.compile(r"linux/[a-z0-9]+(/[a-z0-9]+)?(,linux/[a-z0-9]+(/[a-z0-9]+)?)*")
EXAMPLE = "linux/amd64,linux/arm64"
BUILDER = (
    " (IMAGE_PLATFORMS needs a builder for several platforms, `docker buildx create --use`, and QEMU for those that"
    " this machine is not: docker/setup-buildx-action, docker/setup-qemu-action)"
)
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class ReleaseImages:
    """The images of a release that run on one host, as `sha256:` and 64 digits.

    Each is an image's ID, or its digest where it was pushed. `backup`: None for a release that was built without one.
    """

    backend: str
    migrate: str
    backup: str | None = None

    @property
    def short(self) -> str:
        """The first twelve digits of the backend's: the tag of all."""
        return short_digest(self.backend)

    @property
    def parts(self) -> dict[str, str]:
        """Each image that there is, by its part."""
        return {part: image for part, image in vars(self).items() if image}


@dataclass(frozen=True)
class PushedImages:
    """The images of a release in a registry: the digests of their manifests in `repository`.

    `backup`: None for a release that was pushed without one.
    """

    repository: str
    backend: str
    migrate: str
    frontend: str
    backup: str | None = None

    @property
    def parts(self) -> dict[str, str]:
        """The digest of each image that there is, by its part, the service's first."""
        return {part: digest for part in PARTS if (digest := getattr(self, part))}

    @property
    def others(self) -> dict[str, str]:
        """The digests of those that belong to the service's, by their parts."""
        return {part: digest for part, digest in self.parts.items() if part != "backend"}

    @property
    def places(self) -> tuple[str, ...]:
        """The references by which each can be pulled, the service's first."""
        return tuple(self.place(part) for part in self.parts)

    def place(self, part: str) -> str:
        """Return the reference by which the image `part` (one of `parts`) can be pulled."""
        return f"{self.repository}@{self.parts[part]}"

    @property
    def references(self) -> ReleaseImages:
        """The references by which those that run on one host can be pulled."""
        backup = self.place("backup") if self.backup else None
        return ReleaseImages(self.place("backend"), self.place("migrate"), backup)


@dataclass(frozen=True)
class Images:
    """Builds the images of the repository at `root`."""

    root: Path
    project: str  # PROJECT_NAME: the prefix of local images

    def build(self) -> ReleaseImages:
        """Build the service, its migrations and its backups, and tag all with the short ID of the first."""
        images = ReleaseImages(**{part: self._build(part) for part in ("backend", "migrate", "backup")})
        for part, image in images.parts.items():
            self._tag(image, f"{self.project}-{part}:{images.short}")
        return images

    def build_backup(self) -> str:
        """Build the backups alone, and return the image's ID."""
        return self._build("backup")

    def build_frontend(self) -> str:
        """Build the edge with the page, tag it with its own short ID, and return its ID."""
        frontend = self._build("frontend")
        self._tag(frontend, f"{self.project}-frontend:{short_digest(frontend)}")
        return frontend

    def push(self, repository: str) -> PushedImages:
        """Build all images and push them to `repository`.

        Raise `UsageError` for a name that is not valid, and `SlipwayError` with the complaint of docker or a registry.
        """
        problem = repository_problem(repository)
        if problem:
            raise UsageError(problem)
        platforms = os.environ.get("IMAGE_PLATFORMS")
        if platforms:
            return self._push_platforms(repository, platforms)
        built = self.build()
        images = {**built.parts, "frontend": self.build_frontend()}
        digest = self._push(images.pop("backend"), f"{repository}:{built.short}")
        tags = push_references(repository, digest, images)
        return PushedImages(repository, digest, **{part: self._push(images[part], tag) for part, tag in tags.items()})

    def _push_platforms(self, repository: str, platforms: str) -> PushedImages:
        """Build for several `platforms` (`linux/amd64,linux/arm64`) and push."""
        if not PLATFORMS.fullmatch(platforms):
            raise UsageError(f"IMAGE_PLATFORMS: `{platforms}` is not a list of platforms: for example {EXAMPLE}")
        # No engine keeps such images, so a builder pushes them by digest. The tags, which are made of a digest, follow.
        output = f"type=image,name={repository},push-by-digest=true,name-canonical=true,push=true"
        how = ["--platform", platforms, "--output", output]
        pushed = PushedImages(repository, **{part: self._build(part, how) for part in PARTS})
        tags = {pushed.backend: f"{repository}:{short_digest(pushed.backend)}"}
        references = push_references(repository, pushed.backend, pushed.others)
        tags |= {pushed.others[part]: reference for part, reference in references.items()}
        with Repository(repository, write=True) as opened:
            for digest, reference in tags.items():
                opened.tag(digest, reference.removeprefix(f"{repository}:"))
        return pushed

    def _build(self, part: str, push: Sequence[str] | None = None) -> str:
        """Build the image `part` and return its ID.

        With `push`, the options by which a builder pushes it, return its digest.
        """
        values = read_values(self.root)
        dockerfile, inputs = ("frontend", FRONTEND_INPUTS) if part == "frontend" else ("backend", BACKEND_INPUTS)
        dockerfile = f"docker/Dockerfile.{dockerfile}"
        targets = {"backend": values.get("BUILD_TARGET") or "production", "frontend": None}
        target = targets.get(part, part)
        change = last_change(self.root, inputs)
        base = "PYTHON_IMAGE" if target else "CADDY_IMAGE"  # for example of a mirror
        arguments = {
            "SOURCE_DATE_EPOCH": str(change.epoch),
            **labels(self.root, change, self.project),
            **({"PYTHON_VERSION": values["PYTHON_VERSION"]} if "PYTHON_VERSION" in values and target else {}),
            **({base: os.environ[base]} if os.environ.get(base) else {}),
            # A backup is made by the programs of the server that runs here.
            **(
                {"POSTGRES_IMAGE": values["POSTGRES_IMAGE"]}
                if part == "backup" and values.get("POSTGRES_IMAGE")
                else {}
            ),
        }
        # BuildKit's own attestation would give the image another digest on every build; CI attests the provenance.
        environment = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        # Not in /tmp, of which a Docker that came as a snap has one of its own.
        state = state_folder(self.root)
        state.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=state) as folder:
            ident = Path(folder) / "id"
            options = [*(push or []), *_proxy_options(), *_index_options(Path(folder))]
            command = build_command(dockerfile, target, arguments, ident, options, pushed=bool(push))
            try:
                run(command, output_level=logging.DEBUG, env=environment, cwd=self.root, timeout=TIMEOUT_SECONDS)
            except CommandFailed as error:
                for line in error.output.splitlines():
                    log.info("  %s", line)
                problems = docker_problems(compose=False)
                hint = BUILDER if push else ""
                raise SlipwayError(
                    problems[0] if problems else f"{dockerfile}: {essence(error.output)}{hint}"
                ) from error
            text = ident.read_text(encoding="utf-8").strip()
            return str(json.loads(text)["containerimage.digest"]) if push else text

    def _tag(self, image: str, name: str) -> None:
        Docker(self.root).do("tag", image, name)

    def _push(self, image: str, reference: str) -> str:
        docker = Docker(self.root)
        docker.do("tag", image, reference)
        said = docker.do("push", reference, timeout=TIMEOUT_SECONDS)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        if not found:
            raise SlipwayError(f"docker push {reference}: its output has no digest: {essence(said)}")
        return found[1]


def build_command(
    dockerfile: str,
    target: str | None,
    arguments: dict[str, str],
    ident: Path,
    options: Sequence[str] = (),
    *,
    pushed: bool = False,
) -> list[str]:
    """Return the command line that builds `target` of `dockerfile` and writes the image's ID to `ident`.

    With `pushed`, the builder that is in use builds, and writes what it pushed.
    """
    # `docker build` would take the engine's own builder. `--quiet`, which prints the ID, would hide the output of a
    # step that fails.
    given = [word for name, value in sorted(arguments.items()) for word in ("--build-arg", f"{name}={value}")]
    named = ["--target", target] if target else []
    return [
        "docker",
        *(["buildx", "build"] if pushed else ["build"]),
        "--progress",
        "plain",
        "--metadata-file" if pushed else "--iidfile",
        str(ident),
        *options,
        "--file",
        dockerfile,
        *named,
        *given,
        ".",
    ]


def _proxy_options() -> list[str]:
    """Return the options that pass on the proxies of the environment: BuildKit keeps these out of the image."""
    return [word for name in PROXIES if os.environ.get(name) for word in ("--build-arg", name)]


def _index_options(folder: Path) -> list[str]:
    """Return the options that pass on the index of packages in the environment, by files written to `folder`."""
    index = next((os.environ[name] for name in INDEXES if os.environ.get(name)), None)
    if index is None:
        return []
    files = {"pip": f"[global]\nindex-url = {index}\n", "uv": f"[[index]]\nurl = {json.dumps(index)}\ndefault = true\n"}
    for name, text in files.items():
        write_whole(folder / name, text)  # an address may have a password in it
    return [word for name in files for word in ("--secret", f"id={name},src={folder / name}")]


def labels(root: Path, change: Change, title: str) -> dict[str, str]:
    """Return the build arguments that the OCI labels are made from, as of the last `change` of the image's inputs."""
    # So that the same content gives the same image, whatever was committed since.
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    return {
        "CREATED": datetime.fromtimestamp(change.epoch, UTC).isoformat().replace("+00:00", "Z"),
        "NEEDS": " ".join(needed_secrets()),
        "REVISION": _revision(change),
        "SCHEMA": required_revision(root) or "",
        "SOURCE": remote_address(root) or "",
        "TITLE": title,
        "VERSION": str(project.get("version", "0")),
    }


def built_from(root: Path) -> str:
    """Return the label `revision` of a service's image that is built from the working tree at `root`."""
    return _revision(last_change(root, BACKEND_INPUTS))


def _revision(change: Change) -> str:
    return f"{change.commit or 'unknown'}{'-dirty' if change.dirty else ''}"


def source_of(image_labels: Mapping[str, str]) -> Source:
    """Return what an image was built from, by its labels."""
    revision = image_labels.get("org.opencontainers.image.revision", "")
    commit = revision.removesuffix("-dirty")
    return Source(commit=None if commit in ("", "unknown") else commit, dirty=revision.endswith("-dirty"))


def needs_of(image_labels: Mapping[str, str]) -> list[str]:
    """Return the secrets without which the service in an image does not start; none where its labels do not say."""
    return image_labels.get(NEEDS_LABEL, "").split()


def same_build(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether the labels of two images of a release say that they were built from the same source."""
    names = [f"org.opencontainers.image.{name}" for name in ("created", "revision", "version")]
    return all(one.get(name) == other.get(name) for name in (*names, SCHEMA_LABEL))


def short_digest(image: str) -> str:
    """Return the first twelve digits of an image's digest or ID, which tags are made of, as docker shortens it."""
    return image.removeprefix("sha256:")[:SHORT]


def push_references(repository: str, digest: str, others: Iterable[str]) -> dict[str, str]:
    """Return where the `others` go that belong to the backend with `digest`: part → reference.

    `find_pushed` finds them again by the backend's digest.
    """
    return {part: f"{repository}:{part}-{short_digest(digest)}" for part in others}


def find_pushed(reference: str) -> PushedImages:
    """Return the images of the release whose service is `reference` (`REPOSITORY@sha256:…`), as `push` named them.

    Raise `UsageError` for a tag, and where the others are of another build. Raise `RegistryError` where the registry
    is away or refuses.
    """
    wanted = parse_reference(reference)
    if wanted.digest is None or wanted.tag:
        raise UsageError(f"{reference}: a tag can be moved: name the image by digest, {wanted.repository}@sha256:…")
    place, tags = wanted.repository, push_references(wanted.repository, wanted.digest, PARTS[1:])
    migrate, frontend = (resolve(tags[part]).digest for part in ("migrate", "frontend"))
    images = PushedImages(place, wanted.digest, migrate, frontend, backup_digest(tags["backup"]))
    own = image_labels(images.place("backend"))
    for part in images.others.keys() - {"frontend"}:
        if not same_build(own, image_labels(images.place(part))):
            raise UsageError(
                f"{tags[part]} was built from another source than {reference}: somebody moved that tag;"
                " `nox -s push` pushes all of them"
            )
    return images


def backup_digest(reference: str) -> str | None:
    """Return the digest of the backup image at `reference`; None where there is none, as of releases of before."""
    try:
        return resolve(reference).digest
    except RegistryLacks:
        return None


def image_repository() -> str:
    """Return IMAGE_REPOSITORY in lower case, as registries have it; "" where it is not set."""
    # GitHub's owners and repositories may have upper case in their names, and a workflow cannot change that.
    return os.environ.get("IMAGE_REPOSITORY", "").lower()


def repository_problem(repository: str) -> str | None:
    """Return what is wrong with the name of a repository, None for a valid one."""
    if not repository:
        return "IMAGE_REPOSITORY: not set: where to push, for example IMAGE_REPOSITORY=ghcr.io/owner/name"
    if not REPOSITORY.fullmatch(repository):
        fix = repository.lower() if REPOSITORY.fullmatch(repository.lower()) else "ghcr.io/owner/name"
        return f"IMAGE_REPOSITORY: `{repository}` is not a valid repository (lower case, no tag): for example {fix}"
    return None
