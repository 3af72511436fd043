"""The compose project: its command lines, its containers, and what one of these starts with."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.secrets import SERVICE_SECRETS
from pipeline.engines.docker import Docker
from pipeline.targets.common.container import Container

__all__ = ["FILES", "Stack", "fingerprint", "project_name_problem"]

FILES = ("docker-compose.yml", "docker/compose.rollout.yml")
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Stack:
    """The project `name` of the repository at `root`."""

    root: Path
    name: str
    docker: Docker

    def command(self, *arguments: str) -> list[str]:
        """The arguments of docker for a compose command on the project."""
        files = [word for file in FILES for word in ("--file", file)]
        return ["compose", "--project-name", self.name, *files, *arguments]

    def do(self, *arguments: str, env: Mapping[str, str], timeout: float = 600) -> str:
        """Run a compose command that changes something, with ENV for the variables of its files."""
        return self.docker.do(*self.command(*arguments), env=env, timeout=timeout)

    def containers(self, service: str | None = None) -> list[Container]:
        """The containers of the project (of one SERVICE), running or not, oldest first."""
        filters = [f"label=com.docker.compose.project={self.name}", "label=com.docker.compose.oneoff=False"]
        filters += [f"label=com.docker.compose.service={service}"] if service else []
        given = [word for one in filters for word in ("--filter", one)]
        idents = self.docker.ask("ps", "--all", "--quiet", "--no-trunc", *given).split()
        return sorted((Container.of(one) for one in self.docker.inspect(*idents)), key=lambda one: one.started)

    def definitions(self, env: Mapping[str, str]) -> dict[str, str]:
        """Compose's own hash of each service as the files and ENV define it; a container's label has that it is of."""
        said = self.docker.ask(*self.command("config", "--hash", "*"), env=env)
        return dict(line.split() for line in said.splitlines())

    def network(self, name: str) -> str:
        """The engine's name of a network of the files."""
        return f"{self.name}_{name}"


def fingerprint(definition: str, secrets: Mapping[str, str]) -> str:
    """Names what a replica starts with: compose's DEFINITION of it, image and settings included, and the secrets.

    Those are random and of 32 bytes and more, so that it tells nothing of them.
    """
    known = {name: secrets.get(name, "") for name in SERVICE_SECRETS}
    text = json.dumps([definition, known], sort_keys=True)
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def project_name_problem(name: str) -> str | None:
    """What is wrong with a project's name; None for a good one."""
    if PROJECT.fullmatch(name):
        return None
    return f"PROJECT_NAME: `{name}` is none for compose: lower-case letters, digits, - and _, for example `slipway`"
