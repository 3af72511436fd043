"""The Compose project: its command lines, its containers, and the fingerprint of what a container starts with."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.settings import service_secrets
from pipeline.engines.docker import Docker
from pipeline.targets.common.container import Container

__all__ = ["FILES", "Stack", "config_fingerprint", "passed_secrets", "project_name_problem"]

FILES = ("docker-compose.yml", "docker/compose.rollout.yml")
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Stack:
    """The Compose project `name` of the repository at `root`."""

    root: Path
    name: str
    docker: Docker

    def command(self, *arguments: str) -> list[str]:
        """Return the arguments of `docker` for a Compose command on the project."""
        files = [word for file in FILES for word in ("--file", file)]
        return ["compose", "--project-name", self.name, *files, *arguments]

    def do(self, *arguments: str, env: Mapping[str, str], timeout: float = 600, **options: Any) -> str:
        """Run a Compose command that changes something; return its output. `env` has the variables of the files.

        `options` are those of `Docker.do`.
        """
        return self.docker.do(*self.command(*arguments), env=env, timeout=timeout, **options)

    def containers(self, service: str | None = None) -> list[Container]:
        """Return the containers of the project (or of one `service`), running or not, oldest first."""
        filters = [f"label=com.docker.compose.project={self.name}", "label=com.docker.compose.oneoff=False"]
        filters += [f"label=com.docker.compose.service={service}"] if service else []
        given = [word for label in filters for word in ("--filter", label)]
        idents = self.docker.ask("ps", "--all", "--quiet", "--no-trunc", *given).split()
        return sorted((Container.of(facts) for facts in self.docker.inspect(*idents)), key=lambda one: one.started)

    def definitions(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return Compose's hash of each service as the files and `env` define it.

        A label of each container has the hash of the definition that it was created from.
        """
        hashes = self.docker.ask(*self.command("config", "--hash", "*"), env=env)
        return dict(line.split() for line in hashes.splitlines())

    def services(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return each service as the files and `env` define it."""
        config: dict[str, dict[str, Any]] = json.loads(
            self.docker.ask(*self.command("config", "--format", "json"), env=env)
        )
        return config["services"]

    def network(self, name: str) -> str:
        """Return the name in the engine of the network `name` of the files."""
        return f"{self.name}_{name}"


def passed_secrets(service: Mapping[str, Any]) -> set[str]:
    """Return the names of the secrets that a `service` of the files gets: as a mounted file, or as a variable."""
    mounted = {Path(one.get("target") or one["source"]).name for one in service.get("secrets") or ()}
    return mounted | {name.removesuffix("_FILE") for name in service.get("environment") or ()}


def config_fingerprint(definition: str, secrets: Mapping[str, str]) -> str:
    """Return a hash of what a replica starts with: Compose's `definition` (image, settings) and the `secrets`.

    The secrets are random and have at least 32 bytes, so that the hash reveals nothing of them.
    """
    known = {secret.name: secrets.get(secret.name, "") for secret in service_secrets()}
    text = json.dumps([definition, known], sort_keys=True)
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def project_name_problem(name: str) -> str | None:
    """Return what is wrong with a project's `name`; None for a valid one."""
    if PROJECT.fullmatch(name):
        return None
    return f"PROJECT_NAME: `{name}` is not a valid Compose project name: use a-z, 0-9, - and _, for example `slipway`"
