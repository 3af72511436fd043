"""A container of the service or of its stores: its state in Docker, how it ended, which logins PostgreSQL refuses."""

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
DEFAULT_STOP_SECONDS = 10  # Docker's
LOGIN_REFUSED = re.compile(r"password authentication failed for user .+|database .+ does not exist")


@dataclass(frozen=True)
class Container:
    """A snapshot of one container. `health`: starting, healthy, unhealthy, or empty without a health check."""

    ident: str
    name: str
    service: str
    folder: str  # of the compose file that created it
    running: bool
    state: str
    health: str
    said: str  # the output of its last health check
    exit_code: int
    stop_seconds: int  # between SIGTERM and SIGKILL
    restarts: int
    started: str  # RFC 3339
    image: str
    published: dict[int, frozenset[str]]  # port of the host that leads into it → at which of the host's addresses
    labels: dict[str, str]
    networks: dict[str, list[str]]  # name → its aliases there
    mounts: dict[str, str]  # where in it → what of the host, or the name of a volume
    leaving: bool  # it was told to stop; its health check may still pass for some seconds

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Container:
        """Create it from the output of `docker inspect`."""
        state, labels = facts["State"], facts["Config"].get("Labels") or {}
        health = state.get("Health") or {}
        log = health.get("Log") or []
        published: dict[int, frozenset[str]] = {}
        for port in (port for ports in (facts["NetworkSettings"].get("Ports") or {}).values() for port in ports or ()):
            number = int(port["HostPort"])
            published[number] = published.get(number, frozenset()) | {port["HostIp"]}
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
            stop_seconds=facts["Config"].get("StopTimeout") or DEFAULT_STOP_SECONDS,
            restarts=facts["RestartCount"],
            started=state["StartedAt"],
            image=facts["Image"],
            published=published,
            labels=labels,
            networks={
                name: network.get("Aliases") or [] for name, network in facts["NetworkSettings"]["Networks"].items()
            },
            mounts={one["Destination"]: one.get("Name") or one["Source"] for one in facts.get("Mounts") or ()},
            leaving=facts["HostConfig"]["RestartPolicy"]["Name"] in ("", "no"),
        )

    @property
    def ready(self) -> bool:
        """Whether it runs, is meant to run, and passes its health check."""
        return self.running and not self.leaving and self.health in ("healthy", "")


def last_words(docker: Docker, ident: str) -> str:
    """Return how a container ended and the last telling line of its log: an exception, or the event of a JSON line."""
    line = telling_line(docker.logs(ident, 200).splitlines())
    state: dict[str, Any] = next((facts["State"] for facts in docker.inspect(ident)), {})
    if state.get("OOMKilled"):
        return f"killed at its memory limit; {line}"
    return f"{line} (exit code {state['ExitCode']})" if state.get("ExitCode") else line


def refused_login(docker: Docker, ident: str, role: str, database: str, password: str) -> str | None:
    """Return the error with which the PostgreSQL in container `ident` refuses this login; None where it does not."""
    login = f'psql -h 127.0.0.1 -U "{role}" -d "{database}" -tAc "SELECT 1"'
    script = f"read -r PGPASSWORD; export PGPASSWORD; exec {login}"
    try:
        docker.ask("exec", "--interactive", ident, "sh", "-c", script, given=f"{password}\n")
    except SlipwayError as error:
        # Only PostgreSQL's own message counts: where Docker could not start the process, no password was tried.
        refused = LOGIN_REFUSED.search(error.problems[0])
        return refused[0] if refused else None
    return None
