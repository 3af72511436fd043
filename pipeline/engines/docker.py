"""The docker command line: whether it is there and new enough, and how to ask it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.registry.reference import HUB, parse_reference
from pipeline.system.run import CommandFailed, run

__all__ = ["Docker", "docker_problems", "essence", "run_docker"]

OLDEST_ENGINE = (25, 0)  # a health check's start interval: without it a rollout waits 5 s for each replica
OLDEST_COMPOSE = (2, 24)  # `!override`
ASK_SECONDS = 60
# BuildKit repeats what the step said that failed, with seconds in front, before its own `failed to solve`.
STEP = re.compile(r"^-{6}\n > [^\n]*:\n(.+?)^-{6}$", re.MULTILINE | re.DOTALL)
REFUSED = re.compile(r"unauthorized|no basic auth credentials|(?<!permission )denied|\b40[13]\b")
# runc's words where a process of its own died on the way into a container, whose own has not begun: seen now and then
# on a busy machine (moby 26, runc 1.1), where it undid a deploy.
NOT_BEGUN = re.compile(r"init-p: connection reset by peer|error executing setns process|procReady not received")
TIME = re.compile(r"^\d+\.\d+ ")


def docker_problems(*, compose: bool) -> list[str]:
    """What is wrong with the Docker of this machine, one line with its fix; COMPOSE: its plugin is needed, too."""
    if shutil.which("docker") is None:
        return ["docker: not installed (or not on the PATH): https://docs.docker.com/engine/install"]
    code, said = _ask("version", "--format", "{{.Server.Version}}")
    if code:
        return [_unreachable(said)]
    if _version(said) < OLDEST_ENGINE:
        return [f"Docker Engine {said.strip()} is too old, {_dotted(OLDEST_ENGINE)} is needed: update it"]
    if compose:
        code, said = _ask("compose", "version", "--short")
        if code:
            return ["docker compose: the plugin is not installed: https://docs.docker.com/compose/install/linux"]
        if _version(said) < OLDEST_COMPOSE:
            return [f"Docker Compose {said.strip()} is too old, {_dotted(OLDEST_COMPOSE)} is needed: update it"]
    return []


def run_docker(
    *arguments: str,
    say: Callable[[str], None] = lambda _: None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = ASK_SECONDS,
    given: str | None = None,
) -> str:
    """See `run`, with ENV beside our own environment; once more where the engine could not begin a process."""
    environment = {**os.environ, **(env or {})}
    begin = partial(run, ["docker", *arguments], say=say, env=environment, cwd=cwd, timeout=timeout, given=given)
    try:
        return begin()
    except CommandFailed as error:
        if not NOT_BEGUN.search(error.output):
            raise
    return begin()


class Docker:
    """Runs docker commands. SAY gets each command and what it said on standard error."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root, self._say = root, say

    def do(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 600) -> str:
        """Run a command that changes something, said aloud. Raises `SlipwayError` with what docker complains of."""
        try:
            return run_docker(*arguments, say=self._say, env=env, cwd=self.root, timeout=timeout)
        except CommandFailed as error:
            said = f"docker {_verb(arguments)}: {essence(error.output)}"
            raise SlipwayError(f"{said}{_login(arguments, error.output)}") from error

    def ask(self, *arguments: str, env: Mapping[str, str] | None = None, given: str | None = None) -> str:
        """What a command that changes nothing says, with GIVEN as its standard input. Raises `SlipwayError`."""
        code, said = _ask(*arguments, env=env, cwd=self.root, given=given)
        if code:
            raise SlipwayError(f"docker {_verb(arguments)}: {essence(said)}")
        return said

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """What Docker knows of the containers NAMES; what is not there (any more) is left out.

        `docker inspect` alone takes an image, a network or a volume of that name, too.
        """
        if not names:
            return []
        done = subprocess.run(
            ["docker", "container", "inspect", *names], capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
        found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        if done.returncode and "no such" not in done.stderr.lower():
            raise SlipwayError(f"docker container inspect: {essence(done.stderr)}")
        return found

    def succeeds(self, *arguments: str) -> bool:
        """Whether a command ends with 0."""
        return _ask(*arguments)[0] == 0

    def logs(self, ident: str, lines: int) -> str:
        """The last LINES that a container said, on either stream."""
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
        """The image NAME of this machine, None where it is not here."""
        done = subprocess.run(
            ["docker", "image", "inspect", name], capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
        if done.returncode:
            if "no such image" in done.stderr.lower():
                return None
            raise SlipwayError(f"docker image inspect: {essence(done.stderr)}")
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found


def essence(said: str) -> str:
    """The line of docker's complaint that says why."""
    steps = STEP.findall(said)
    own = [TIME.sub("", line.strip()) for line in (steps[-1] if steps else said).splitlines()]
    lines = [line for line in own if line and set(line) != {"-"}]
    telling = [line for line in lines if "error" in line.lower() or "denied" in line.lower()]
    best = (telling or lines or ["it said nothing"])[-1]
    return best.removeprefix("ERROR: ").removeprefix("Error response from daemon: ")[:300]


def _login(arguments: Sequence[str], said: str) -> str:
    """The fix where a registry does not let us in; nothing for any other complaint."""
    if arguments[0] not in ("push", "pull") or not REFUSED.search(said):
        return ""
    host = parse_reference(arguments[-1]).host
    place = "" if host == HUB else f" {host}"
    return f": `docker login{place}` as somebody who may {arguments[0]} {arguments[-1]}"


def _ask(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, given: str | None = None
) -> tuple[int, str]:
    """The exit code, and what was said: where it failed, the complaint."""
    try:
        return 0, run_docker(*arguments, env=env, cwd=cwd, given=given)
    except CommandFailed as error:
        return error.code, error.output
    except SlipwayError:
        return 1, f"no answer within {ASK_SECONDS} s"


def _unreachable(said: str) -> str:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if "permission denied" in said.lower():
        return f"docker: no permission for {host}: `sudo usermod -aG docker $USER`, log in again; or rootless Docker"
    return f"docker: no engine answers at {host}: start it (`sudo systemctl start docker`), or mend DOCKER_HOST"


def _version(said: str) -> tuple[int, int]:
    digits = ["".join(filter(str.isdigit, part)) for part in said.strip().lstrip("v").split(".")[:2]]
    return int(digits[0] or 0), int(digits[1] or 0) if len(digits) > 1 else 0


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _verb(arguments: Sequence[str]) -> str:
    words = [word for word in arguments if not word.startswith("-")]
    return " ".join(words[:1])
