"""The compose project: its command lines, the variables of docker-compose.yml, and its containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.docker import Docker
from pipeline.settings import variables

__all__ = ["FILES", "Container", "Stack", "project_name_problem"]

FILES = ("docker-compose.yml", "docker/compose.rollout.yml")
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Container:
    """One container as it was seen. `health`: starting, healthy, unhealthy, or empty without a check."""

    ident: str
    name: str
    service: str
    folder: str  # of the compose file that made it
    running: bool
    state: str
    health: str
    said: str  # by its last health check
    exit_code: int
    restarts: int
    started: str  # RFC 3339
    image: str
    ports: frozenset[int]  # of the host, that lead into it
    labels: dict[str, str]
    networks: dict[str, list[str]]  # name → its aliases there
    leaving: bool  # it was told to end: its health check may say otherwise for seconds yet

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Container:
        """From what `docker inspect` says."""
        state, labels = facts["State"], facts["Config"].get("Labels") or {}
        health = state.get("Health") or {}
        log = health.get("Log") or []
        published = facts["NetworkSettings"].get("Ports") or {}
        return cls(
            ident=facts["Id"],
            name=facts["Name"].lstrip("/"),
            service=labels.get("com.docker.compose.service", ""),
            folder=labels.get("com.docker.compose.project.working_dir", ""),
            running=state["Running"] and not state.get("Restarting", False),
            state=state["Status"],
            health=health.get("Status", ""),
            said=str(log[-1].get("Output", "")).strip() if log else "",
            exit_code=state["ExitCode"],
            restarts=facts["RestartCount"],
            started=state["StartedAt"],
            image=facts["Image"],
            ports=frozenset(int(one["HostPort"]) for all_ in published.values() for one in all_ or ()),
            labels=labels,
            networks={name: one.get("Aliases") or [] for name, one in facts["NetworkSettings"]["Networks"].items()},
            leaving=facts["HostConfig"]["RestartPolicy"]["Name"] in ("", "no"),
        )

    @property
    def ready(self) -> bool:
        """Whether it runs, is meant to, and its health check says that it is ready."""
        return self.running and not self.leaving and self.health in ("healthy", "")


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


def settings_environment(config: Mapping[str, str]) -> dict[str, str]:
    """CONFIG for compose, which would take from `.env` what is not said here."""
    return {one.name: config.get(one.name, one.default) for one in variables() if not one.secret}


def project_name_problem(name: str) -> str | None:
    """What is wrong with a project's name; None for a good one."""
    if PROJECT.fullmatch(name):
        return None
    return f"PROJECT_NAME: `{name}` is none for compose: lower-case letters, digits, - and _, for example `slipway`"
