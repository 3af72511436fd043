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

from pipeline.config.managed import FILES as FILES_OF_STORES
from pipeline.config.settings import OWNER_PASSWORD, service_secrets
from pipeline.engines.docker import Docker
from pipeline.targets.common.container import Container

__all__ = [
    "DEFINITION",
    "FILES",
    "HTTPS",
    "PROJECT_LABEL",
    "Stack",
    "config_fingerprint",
    "containers_of",
    "passed_secrets",
    "project_name_problem",
    "same_folder",
]

FILES = ("docker-compose.yml", "docker/compose.monitoring.yml", "docker/compose.rollout.yml")
HTTPS = "docker/compose.https.yml"  # besides, where EDGE_DOMAIN is set
# Compose reads `.env` itself. What a deploy does to the service must not depend on the profiles that are named there:
# next to one, that without a name is no longer the default, and it is PostgreSQL's.
NO_PROFILE = {"COMPOSE_PROFILES": ""}
DEFINITION = "com.docker.compose.config-hash"  # the label with Compose's hash of what a container was created from
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
PROJECT_LABEL = "com.docker.compose.project"


@dataclass(frozen=True)
class Stack:
    """The Compose project `name` of the repository at `root`.

    `https`: its edge has a domain. `elsewhere`: the stores that others manage.
    """

    root: Path
    name: str
    docker: Docker
    https: bool = False
    elsewhere: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """Return the arguments of `docker` for a Compose command on the project."""
        # What is stopped may have had a domain before.
        https = (HTTPS,) if self.https or "down" in arguments else ()
        files = [word for file in (*FILES, *https) for word in ("--file", file)]
        return ["compose", "--project-name", self.name, *files, *arguments]

    def do(self, *arguments: str, env: Mapping[str, str], timeout: float = 600, **options: Any) -> str:
        """Run a Compose command that changes something; return its output. `env` has the variables of the files.

        `options` are those of `Docker.do`.
        """
        env = {**NO_PROFILE, **env}
        if arguments[0] in ("up", "run"):
            # Of a service in a profile that is not asked for, Compose makes no volume.
            env = {**env, **{f"SLIPWAY_PROFILE_{store.upper()}": "elsewhere" for store in self.elsewhere}}
        return self.docker.do(*self.command(*arguments), env=env, timeout=timeout, **options)

    def containers(self, service: str | None = None) -> list[Container]:
        """Return the containers of the project (or of one `service`), running or not, oldest first."""
        filters = [f"label={PROJECT_LABEL}={self.name}", "label=com.docker.compose.oneoff=False"]
        filters += [f"label=com.docker.compose.service={service}"] if service else []
        given = [word for label in filters for word in ("--filter", label)]
        idents = self.docker.ask("ps", "--all", "--quiet", "--no-trunc", *given).split()
        return sorted((Container.of(facts) for facts in self.docker.inspect(*idents)), key=lambda one: one.started)

    def definitions(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return Compose's hash of each service as the files and `env` define it.

        A label of each container has the hash of the definition that it was created from.
        """
        hashes = self.docker.ask(*self.command("config", "--hash", "*"), env={**NO_PROFILE, **env})
        return dict(line.split() for line in hashes.splitlines())

    def config(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the whole configuration as the files and `env` define it."""
        said = self.docker.ask(*self.command("config", "--format", "json"), env={**NO_PROFILE, **env})
        config: dict[str, Any] = json.loads(said)
        return config

    def services(self, env: Mapping[str, str]) -> dict[str, Any]:
        """Return each service as the files and `env` define it."""
        services: dict[str, Any] = self.config(env)["services"]
        return services

    def apply(self, config: Mapping[str, Any], *arguments: str, timeout: float = 600) -> None:
        """Run `docker compose up` for a `config` that no file has, in the project that it names."""
        command = [
            "compose",
            "--project-name",
            str(config["name"]),
            "--project-directory",
            str(self.root),
            "--file",
            "-",
        ]
        up = ("up", "--detach", "--no-build", *arguments)
        self.docker.do(*command, *up, env=NO_PROFILE, given=json.dumps(config), timeout=timeout)

    @property
    def backups(self) -> str:
        """The name in the engine of the volume of the backups."""
        return f"{self.name}-backups"

    def network(self, name: str) -> str:
        """Return the name in the engine of the network `name` of the files."""
        return f"{self.name}_{name}"


def containers_of(docker: Docker, root: Path) -> list[Container]:
    """Return the containers of every Compose project that was started from the folder `root`, running or not."""
    idents = docker.ask("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={PROJECT_LABEL}").split()
    return [one for one in map(Container.of, docker.inspect(*idents)) if same_folder(one.folder, root)]


def same_folder(folder: str, root: Path) -> bool:
    """Return whether two paths lead to one folder, by whatever link or mount; one that is gone is none."""
    try:
        return Path(folder).samefile(root)
    except OSError:
        return False


def passed_secrets(service: Mapping[str, Any]) -> set[str]:
    """Return the names of the secrets that a `service` of the files gets: as a mounted file, or as a variable."""
    mounted = {Path(one.get("target") or one["source"]).name for one in service.get("secrets") or ()}
    return mounted | {name.removesuffix("_FILE") for name in service.get("environment") or ()}


def config_fingerprint(definition: str, secrets: Mapping[str, str]) -> str:
    """Return a hash of what a replica starts with: Compose's `definition` (image, settings) and the `secrets`.

    The secrets are random and have at least 32 bytes, so that the hash reveals nothing of them.
    """
    known = {secret.name: secrets.get(secret.name, "") for secret in service_secrets()}
    known |= {name: secrets[name] for name in FILES_OF_STORES if secrets.get(name) and name != OWNER_PASSWORD}
    text = json.dumps([definition, known], sort_keys=True)
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def project_name_problem(name: str) -> str | None:
    """Return what is wrong with a project's `name`; None for a valid one."""
    if PROJECT.fullmatch(name):
        return None
    return f"PROJECT_NAME: `{name}` is not a valid Compose project name: use a-z, 0-9, - and _, for example `slipway`"
