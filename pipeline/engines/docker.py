"""The docker command line: whether it is installed and recent enough, and how to run it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import SlipwayError
from pipeline.registry.reference import HUB, parse_reference
from pipeline.system.run import CommandFailed, run
from pipeline.system.text import shorten

__all__ = ["Docker", "docker_problems", "essence", "ignored_variables", "remote_problem", "run_docker"]

log = logging.getLogger(__name__)

OLDEST_ENGINE = (25, 0)  # has a health check's start interval, without which a rollout waits 5 s for each replica
OLDEST_COMPOSE = (2, 24)  # `!override`
ASK_SECONDS = 60
# BuildKit repeats the output of the step that failed, prefixed with seconds, before its own `failed to solve`.
STEP = re.compile(r"^-{6}\n > [^\n]*:\n(.+?)^-{6}$", re.MULTILINE | re.DOTALL)
REFUSED = re.compile(r"unauthorized|no basic auth credentials|(?<!permission )denied|\b40[13]\b")
# What runc prints when its own helper process dies on the way into a container, before the container's process has
# begun: seen now and then on a busy machine (moby 26, runc 1.1), where it undid a deploy.
NOT_BEGUN = re.compile(r"init-p: connection reset by peer|error executing setns process|procReady not received")
TIME = re.compile(r"^\d+\.\d+ ")
# Of the environment: a deploy names its own files and project, and removes what it removes itself.
IGNORED = ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_REMOVE_ORPHANS")
SOCKET = "unix:///var/run/docker.sock"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def docker_problems(*, compose: bool) -> list[str]:
    """Return what is wrong with this machine's Docker, one line each with its fix.

    `compose`: whether the Compose plugin is needed, too.
    """
    if shutil.which("docker") is None:
        return ["docker: not installed (or not on the PATH): https://docs.docker.com/engine/install"]
    code, version = _ask("version", "--format", "{{.Server.Version}}")
    if code:
        return [_unreachable(version)]
    if _version(version) < OLDEST_ENGINE:
        return [f"Docker Engine {version.strip()} is too old, {_dotted(OLDEST_ENGINE)} is needed: update it"]
    if compose:
        code, version = _ask("compose", "version", "--short")
        if code:
            return ["docker compose: the plugin is not installed: https://docs.docker.com/compose/install/linux"]
        if _version(version) < OLDEST_COMPOSE:
            return [f"Docker Compose {version.strip()} is too old, {_dotted(OLDEST_COMPOSE)} is needed: update it"]
    return []


def run_docker(
    *arguments: str,
    level: int = logging.DEBUG,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = ASK_SECONDS,
    **options: Any,
) -> str:
    """Run docker as `run` does, with `env` added to our own environment and with its other `options`.

    Try once more where the engine could not begin a process.
    """
    # Compose takes the folder that it is in from PWD, which a shell sets to the symbolic link that it came by: another
    # path is another definition of each container with a mount, and another owner of the project.
    place = {"PWD": str(cwd)} if cwd else {}
    ours = {name: value for name, value in os.environ.items() if name not in IGNORED}
    environment = {**ours, **place, **(env or {})}
    begin = partial(run, ["docker", *arguments], level=level, env=environment, cwd=cwd, timeout=timeout, **options)
    try:
        return begin()
    except CommandFailed as error:
        if not NOT_BEGUN.search(error.output):
            raise
    return begin()


class Docker:
    """Runs docker commands in the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def do(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 600, **options: Any) -> str:
        """Run a command that changes something, and print it. Raise `SlipwayError` with docker's complaint.

        `options` are those of `pipeline.system.run.run`.
        """
        try:
            return run_docker(*arguments, level=logging.INFO, env=env, cwd=self.root, timeout=timeout, **options)
        except CommandFailed as error:
            problem = f"docker {_verb(arguments)}: {essence(error.output)}"
            raise SlipwayError(f"{problem}{_login(arguments, error.output)}") from error

    def ask(self, *arguments: str, env: Mapping[str, str] | None = None, given: str | None = None) -> str:
        """Return the output of a command that changes nothing, with `given` on its standard input.

        Raise `SlipwayError` where it fails.
        """
        code, output = _ask(*arguments, env=env, cwd=self.root, given=given)
        if code:
            raise SlipwayError(f"docker {_verb(arguments)}: {essence(output)}")
        return output

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """Return what Docker knows of the containers `names`, without those that do not exist (any more)."""
        if not names:
            return []
        # `docker inspect` alone takes an image, a network or a volume of that name, too.
        done = subprocess.run(
            ["docker", "container", "inspect", *names], capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
        containers: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        if done.returncode and "no such" not in done.stderr.lower():
            raise SlipwayError(f"docker container inspect: {essence(done.stderr)}")
        return containers

    def publishing(self, port: int) -> list[dict[str, Any]]:
        """Return what Docker knows of the running containers that publish the TCP `port` of this machine."""
        return self.inspect(*self.ask("ps", "--quiet", "--filter", f"publish={port}/tcp").split())

    def forget(self, *names: str) -> None:
        """Remove `names` of images; an image that has no other name goes with its last one. Warn of what stays."""
        for name in names:
            try:
                self.do("rmi", "--no-prune", name)
            except SlipwayError as error:  # a container that is not ours may run it
                log.warning(f"image {name} stays: {error.problems[0]}")

    def names(self, *repositories: str) -> list[str]:
        """Return the names that images of `repositories` have on this machine: `REPOSITORY:TAG`."""
        shown = [self.ask("images", "--format", "{{.Repository}}:{{.Tag}}", one) for one in repositories]
        return [name for name in " ".join(shown).split() if not name.endswith(":<none>")]

    def succeeds(self, *arguments: str) -> bool:
        """Return whether a command exits with 0."""
        return _ask(*arguments)[0] == 0

    def logs(self, ident: str, lines: int) -> str:
        """Return the last `lines` that a container printed, on either stream."""
        done = subprocess.run(
            ["docker", "logs", "--tail", str(lines), ident],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=ASK_SECONDS,
        )
        return done.stdout

    def image(self, name: str) -> dict[str, Any] | None:
        """Return the image `name` of this machine, None where it is not here."""
        done = subprocess.run(
            ["docker", "image", "inspect", name], capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
        if done.returncode:
            if "no such image" in done.stderr.lower():
                return None
            raise SlipwayError(f"docker image inspect: {essence(done.stderr)}")
        image: dict[str, Any] = json.loads(done.stdout)[0]
        return image


def essence(said: str) -> str:
    """Return the line of docker's complaint that says why."""
    steps = STEP.findall(said)
    own = [TIME.sub("", line.strip()) for line in (steps[-1] if steps else said).splitlines()]
    lines = [line for line in own if line and set(line) != {"-"}]
    telling = [line for line in lines if "error" in line.lower() or "denied" in line.lower()]
    best = (telling or lines or ["it said nothing"])[-1]
    return shorten(best.removeprefix("ERROR: ").removeprefix("Error response from daemon: "))


def _login(arguments: Sequence[str], said: str) -> str:
    """Return the fix where a registry does not let us in, "" for any other complaint."""
    if arguments[0] not in ("push", "pull") or not REFUSED.search(said):
        return ""
    host = parse_reference(arguments[-1]).host
    place = "" if host == HUB else f" {host}"
    return f": `docker login{place}` as somebody who may {arguments[0]} {arguments[-1]}"


def _ask(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, given: str | None = None
) -> tuple[int, str]:
    """Return the exit code and the output: where the command failed, its complaint."""
    try:
        return 0, run_docker(*arguments, env=env, cwd=cwd, given=given)
    except CommandFailed as error:
        return error.code, error.output
    except SlipwayError:
        return 1, f"no answer within {ASK_SECONDS} s"


def ignored_variables() -> list[str]:
    """Return a line for each variable of the environment that Compose would follow, and that a deploy does not."""
    return [f"{name} is ignored: a deploy names its own files and project" for name in IGNORED if os.environ.get(name)]


def remote_problem() -> str | None:
    """Return why the engine cannot run what this machine serves: it is another machine's; None if it is here."""
    host, source = _endpoint()
    parts = urlsplit(host)
    if parts.scheme in ("unix", "npipe", "fd") or parts.hostname in LOCAL_HOSTS:
        return None
    return (
        f"{source}: {host} is another machine's engine, which finds neither the secrets nor the edge's address of this"
        " one: run nox there, or use this machine's engine"
    )


def _endpoint() -> tuple[str, str]:
    """Return the address of the engine, and what names it."""
    if host := os.environ.get("DOCKER_HOST"):
        return host, "DOCKER_HOST"
    done = subprocess.run(
        ["docker", "context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}}"],
        capture_output=True, text=True, check=False, timeout=ASK_SECONDS,
    )  # fmt: skip
    name, _, host = done.stdout.strip().partition(" ")
    source = "DOCKER_CONTEXT" if os.environ.get("DOCKER_CONTEXT") else f"docker's context `{name}`"
    return host or SOCKET, source


def _unreachable(said: str) -> str:
    if "context" in said and "not found" in said:
        return f"docker: {essence(said)}: fix DOCKER_CONTEXT, or `docker context use default`"
    host, source = _endpoint()
    if "permission denied" in said.lower():
        return f"docker: no permission for {host}: `sudo usermod -aG docker $USER`, log in again; or rootless Docker"
    return f"docker: no engine answers at {host}: start it (`sudo systemctl start docker`), or fix {source}"


def _version(said: str) -> tuple[int, int]:
    digits = ["".join(filter(str.isdigit, part)) for part in said.strip().lstrip("v").split(".")[:2]]
    return int(digits[0] or 0), int(digits[1] or 0) if len(digits) > 1 else 0


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _verb(arguments: Sequence[str]) -> str:
    words = [word for word in arguments if not word.startswith("-")]
    return " ".join(words[:1])
