"""What targets on one machine share: `.env`, and their records and their lock as files below `.slipway/ENV`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager

from pipeline.config.project import Environment, Project
from pipeline.config.settings import edge_port, ensure_env, read_values
from pipeline.releases.lock import Holder, held_by, hold_lock
from pipeline.releases.records import Records

__all__ = ["FEWEST_SLOTS", "LONGEST_REQUEST_SECONDS", "KeptHere", "SiteHere", "max_connections"]

log = logging.getLogger(__name__)

LONGEST_REQUEST_SECONDS = 30  # for requests that a replica still answers when its drain is over
FEWEST_SLOTS = 6  # of the edge: a change of the number of replicas rarely reloads or recreates it
CONNECTION_RESERVE = 15  # besides the replicas: migrations, a psql or two, PostgreSQL's own


class SiteHere:
    """What the sites of all targets on one machine know: `.env`, and the edge's port."""

    project: Project
    env: Environment

    def read_settings(self) -> None:
        """Read `.env` anew."""
        self.values = read_values(self.project.root)
        self.port = edge_port(self.values)
        self.url = self.env.url.replace("{EDGE_PORT}", str(self.port))

    def ensure_env(self) -> None:
        """Write `.env` with fresh secrets where there is none, and read it."""
        if ensure_env(self.project.root):
            log.info("wrote .env with fresh secrets (mode 0600)")
            self.read_settings()


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
