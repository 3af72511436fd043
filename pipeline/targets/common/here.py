"""What targets on one machine share: `.env`, and their records and their lock as files below `.slipway/ENV`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from pipeline.config.project import Environment, Project
from pipeline.config.settings import edge_port, ensure_env, env_or_shell
from pipeline.config.sources import environment_values
from pipeline.engines.occupant import occupant_of
from pipeline.releases.lock import Holder, held_by, hold_lock
from pipeline.releases.records import Records
from pipeline.system.place import env_file
from pipeline.system.ports import LOOPBACK, address_problem, next_free_port, port_free, url_host

__all__ = ["FEWEST_SLOTS", "KeptHere", "SiteHere", "max_connections", "own_port"]

log = logging.getLogger(__name__)

FEWEST_SLOTS = 6  # of the edge: a change of the number of replicas rarely reloads or recreates it
CONNECTION_RESERVE = 15  # besides the replicas: migrations, a psql or two, PostgreSQL's own


class SiteHere:
    """What the sites of all targets on one machine know: `.env`, and the edge's port."""

    project: Project
    env: Environment

    def read_settings(self) -> None:
        """Read `.env` anew, and where there is another source of secrets, that."""
        self.values = environment_values(self.project.root, self.env.name, self.env.secrets)
        self.port = own_port(self.env) or edge_port(self.values)
        self.url = self.env.url.replace("{EDGE_PORT}", str(self.port))
        if self.host != LOOPBACK:  # where the edge listens, `localhost` may lead nowhere, or to somebody else
            self.url = self.url.replace("//localhost:", f"//{self.host}:")

    def ensure_env(self) -> None:
        """Write `.env` with fresh secrets where there is none, and read it."""
        if ensure_env(self.project.root):
            log.info("wrote .env with fresh secrets (mode 0600)")
            self.read_settings()

    @property
    def address(self) -> str:
        """The IP address that the edge listens at."""
        return LOOPBACK

    @property
    def host(self) -> str:
        """The host of a URL that reaches the edge from here."""
        return LOOPBACK if address_problem(self.address) else url_host(self.address)

    @property
    def chooses_port(self) -> bool:
        """Whether nothing names the edge's port yet, so that `nox -s init` can choose it."""
        return not (env_file(self.project.root).exists() or "EDGE_PORT" in self.values or own_port(self.env))

    @property
    def port_setting(self) -> str:
        """What names the edge's port."""
        return f"pyproject.toml {self._table}: url" if own_port(self.env) else "EDGE_PORT"

    def port_problems(self) -> list[str]:
        """Return a line, with its fix, where something else listens on the edge's port."""
        if port_free(self.port, self.address):
            return []
        occupant, free = occupant_of(self.port, self.project.root), next_free_port(self.port + 1, self.address)
        if own_port(self.env):
            way = f"write another port there: {free} is free"
        elif occupant.ours:
            way = f'give {self.env.name} a port of its own, `url = "http://localhost:{free}"` in {self._table}'
        elif self.chooses_port:
            way = f"`nox -s init`, which writes the next free port, {free}, to .env"
        else:
            way = f"set another EDGE_PORT in {env_or_shell('EDGE_PORT')}: {free} is free"
        return [f"{self.port_setting}: port {self.port} is taken by {occupant.who}: {occupant.frees}, or {way}"]

    @property
    def _table(self) -> str:
        return f"[tool.slipway.environments.{self.env.name}]"


class KeptHere:
    """The methods of `pipeline.targets.Target` that are alike for all targets on one machine."""

    project: Project
    env: Environment
    site: SiteHere

    @property
    def url(self) -> str:
        """The address of the edge."""
        return self.site.url

    def records(self) -> Records:
        """Return the records on this machine."""
        return Records(self.project.state(self.env.name) / "releases")

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock on this machine."""
        return hold_lock(self.project.state(self.env.name) / "lock")

    def holder(self) -> Holder | None:
        """Return who deploys on this machine now."""
        return held_by(self.project.state(self.env.name) / "lock")


def max_connections(replicas: int, settings: Mapping[str, str]) -> int:
    """Return PostgreSQL's `max_connections` for `replicas` with these `settings`, and one more during a rollout."""
    pool = int(settings.get("DATABASE_POOL_SIZE", "5")) + int(settings.get("DATABASE_MAX_OVERFLOW", "5"))
    return max(100, (replicas + 1) * int(settings.get("BACKEND_WORKERS", "1")) * pool + CONNECTION_RESERVE)


def own_port(env: Environment) -> int | None:
    """Return the port that the `url` of `env` names on this machine; None where EDGE_PORT decides.

    Any other address is that of a proxy in front of the edge.
    """
    parts = urlsplit(env.url.replace("{EDGE_PORT}", ""))
    host = parts.hostname or ""
    here = host in ("localhost", "127.0.0.1", "::1") or host.endswith(".localhost")
    return parts.port if here and parts.scheme == "http" else None
