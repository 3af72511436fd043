"""The backups that there are, as the program near the database lists them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import UsageError
from pipeline.targets import Target

__all__ = ["LATEST", "Backup", "find_backup", "list_backups", "read_backups"]

log = logging.getLogger(__name__)

LATEST = "latest"
LIST_SECONDS = 300  # where they are far away
SHORTEST_NAME = 4


@dataclass(frozen=True)
class Backup:
    """One whole backup. `at` is the moment whose data it has, `rows` those of all tables; see `summary` for the rest.

    `seconds` is how long it took; it is `here`, beside the database, or `away`, off the host, or both.
    """

    name: str
    at: datetime
    seconds: float
    bytes: int
    rows: int
    release: str | None
    revision: str | None
    encrypted: bool
    here: bool
    away: bool
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Backup:
        """Return what the program's `summary` says."""
        begun, done = (datetime.fromisoformat(summary[name]) for name in ("started", "finished"))
        return cls(
            name=summary["name"],
            at=datetime.fromisoformat(summary["snapshot"]),
            seconds=(done - begun).total_seconds(),
            bytes=summary["bytes"],
            rows=sum(table["rows"] for table in summary["tables"]),
            release=summary["release"],
            revision=summary["revision"],
            encrypted=bool(summary["encrypted"]),
            here=summary["here"],
            away=summary["away"],
            summary=summary,
        )

    @property
    def age(self) -> float:
        """The seconds since the moment whose data it has."""
        return (datetime.now(UTC) - self.at).total_seconds()

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return " and ".join(word for word, true in (("here", self.here), ("off the host", self.away)) if true)


def read_backups(target: Target) -> tuple[list[Backup], str | None]:
    """Return all whole backups of `target`, newest first, and what is wrong where they are kept."""
    answer = target.backups.run("list", told=log.debug, seconds=LIST_SECONDS)
    backups = sorted(map(Backup.of, answer["backups"]), key=lambda backup: backup.at, reverse=True)
    if not backups and answer.get("others"):
        others = ", ".join(answer["others"])
        log.warning(
            f"the backups here are of another project, {others}: to restore one, set PROJECT_NAME in .env to that, and"
            " deploy first"
        )
    return backups, answer.get("problem")


def list_backups(target: Target) -> list[Backup]:
    """Return all whole backups of `target`, newest first; say what is wrong with where they are kept."""
    backups, problem = read_backups(target)
    if problem:
        log.warning(problem)
    return backups


def find_backup(backups: Sequence[Backup], reference: str, env: str) -> Backup:
    """Return the backup that `reference` means: `latest`, a name or its beginning.

    Raise `UsageError` where it means none, or more than one.
    """
    if not backups:
        raise UsageError(f"{env} has no backup: `nox -s backup -- {env}` makes one")
    if reference == LATEST:
        return backups[0]
    fits = [one for one in backups if one.name.startswith(reference) and len(reference) >= SHORTEST_NAME]
    if len(fits) == 1:
        return fits[0]
    listed = f"`nox -s backups -- {env}` lists them"
    if not fits:
        raise UsageError(f"{env} has no backup `{reference}`: {listed}")
    raise UsageError(f"`{reference}` fits more than one backup: {', '.join(one.name for one in fits)}")
