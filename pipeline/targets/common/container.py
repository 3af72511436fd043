"""A container of the service or of what it needs: as Docker sees it, how one ended, whom its PostgreSQL lets in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.targets.common.diagnosis import telling_line

__all__ = ["BACKEND_PORT", "Container", "last_words", "refused_login"]

BACKEND_PORT = 8000
LOGIN_REFUSED = re.compile(r"password authentication failed for user .+|database .+ does not exist")


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


def last_words(docker: Docker, ident: str) -> str:
    """How a container ended, and the last line that says something in its log: an exception, or a JSON line's event."""
    said = telling_line(docker.logs(ident, 200).splitlines())
    state: dict[str, Any] = next((facts["State"] for facts in docker.inspect(ident)), {})
    if state.get("OOMKilled"):
        return f"killed at its memory limit; {said}"
    return f"{said} (exit code {state['ExitCode']})" if state.get("ExitCode") else said


def refused_login(docker: Docker, ident: str, role: str, database: str, password: str) -> str | None:
    """How the PostgreSQL in container IDENT refuses this login, in its own words; None where it does not.

    Only PostgreSQL's word counts: an engine that could not begin a process in there knows nothing of a password.
    """
    login = f'psql -h 127.0.0.1 -U "{role}" -d "{database}" -tAc "SELECT 1"'
    script = f"read -r PGPASSWORD; export PGPASSWORD; exec {login}"
    try:
        docker.ask("exec", "--interactive", ident, "sh", "-c", script, given=f"{password}\n")
    except SlipwayError as error:
        refused = LOGIN_REFUSED.search(error.problems[0])
        return refused[0] if refused else None
    return None
