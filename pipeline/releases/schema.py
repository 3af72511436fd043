"""The schema of an environment's database: what it has and lacks of a release's migrations.

The release's own command answers near the database (`python -m backend.migrations status`): which migrations were
applied, and in which form, is recorded in the database itself.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Artifact, Loss, Migration, Write
from pipeline.system.run import CommandFailed, run

__all__ = ["AskedDatabase", "Schema", "ask_schema", "plan_migrations", "plan_repository"]

log = logging.getLogger(__name__)

NO_DATABASE = re.compile(r'database "[^"]*" does not exist')
NEVER = "none"  # the revision of a database that was never migrated


class AskedDatabase(Protocol):
    """The part of a target's `Database` that this module needs."""

    def runs(self, new: Artifact) -> bool:
        """Return whether the database that `new` will use can be asked now."""

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of `release`, within reach of the `database` or not; return what it printed."""


@dataclass(frozen=True)
class Schema:
    """The state of the database: what it has and lacks of a release's migrations.

    `revision`: None where it was never migrated. `recorded`: whether it has a history of them. `trusted`: those that
    will be recorded as they are now, because the release that serves has them in the same form. `backup`: since when
    one runs, and which session of PostgreSQL it is. `legacy`: the release's own command knows of no history;
    `excludes`: it does know of backups.
    """

    revision: str | None
    pending: list[Migration]
    recorded: bool
    trusted: tuple[str, ...] = ()
    legacy: bool = False
    backup: str | None = None
    excludes: bool = True

    def upgrade_arguments(
        self, kept: Iterable[str], forgotten: str | None, *, cancel_backup: bool = False
    ) -> list[str]:
        """Return the arguments of the migrations command that make it do what was checked and nothing else."""
        if self.legacy:
            return ["upgrade"]
        return [
            *("upgrade", "--expect", self.revision or NEVER),
            *_option("--kept", kept),
            *_option("--trust", self.trusted),
            *_option("--forget", [forgotten] if forgotten else []),
            *(["--cancel-backup"] if cancel_backup and self.excludes else []),
        ]


def ask_schema(
    database: AskedDatabase,
    new: Artifact,
    old: Artifact | None,
    *,
    kept: Iterable[str],
    forgotten: str | None,
    started: bool = False,
) -> Schema | None:
    """Return what the database has of the migrations of `new`; None where there is no database to ask yet.

    `old` serves; `kept` are the revisions of the releases that are kept; `forgotten` is an applied one to forget;
    `started`: this deploy has brought the database up, so it must be there.
    Raise `DeployFailed` where what was applied and the files disagree.
    """
    if not database.runs(new):
        return None
    asked = ["status", *_option("--kept", kept), *_option("--forget", [forgotten] if forgotten else [])]
    try:
        status: dict[str, Any] = json.loads(_last_line(database.migrations(new, *asked)))
    except SlipwayError as error:
        text = str(error)
        if not started and NO_DATABASE.search(text):
            return None  # a deploy was killed before it made the database
        if "invalid choice" in text:
            return _ask_without_history(database, new)
        raise
    if status["problems"]:
        raise DeployFailed(*status["problems"])
    trusted = () if status["recorded"] else _trusted(database, new, old, status["unknown"])
    return Schema(
        status["revision"],
        [_migration(each) for each in status["pending"]],
        status["recorded"],
        trusted,
        backup=status.get("backup"),
        excludes="backup" in status,
    )


def plan_migrations(database: AskedDatabase, release: Artifact) -> list[Migration]:
    """Return all migrations of `release`, oldest first, as for an empty database."""
    if release.revision is None:
        return []
    return _planned(database.migrations(release, "plan", "--from", NEVER, database=False))


def plan_repository(root: Path) -> list[Migration]:
    """Return all migrations of the repository at `root`, oldest first. This Python must have the service's packages.

    Raise `SlipwayError` where one cannot be loaded.
    """
    try:
        return _planned(run([sys.executable, "-m", "backend.migrations", "plan"], cwd=root, level=logging.DEBUG))
    except CommandFailed as error:
        raise SlipwayError(f"the migrations cannot be loaded: {error.problems[0]}") from None


def _planned(said: str) -> list[Migration]:
    """Return the migrations that `plan` has printed. Of their losses, those stay that no database can count."""
    planned = json.loads(said)
    for one in planned:
        lost = [loss["what"] for loss in one.get("losses", []) if not loss.get("names", True)]
        one["losses"] = [{"what": what, "rows": None} for what in lost]
        one["writes"] = []
    return [_migration(one) for one in planned]


def _ask_without_history(database: AskedDatabase, new: Artifact) -> Schema:
    """Ask with the command of a release that was made before databases had a history; return the schema."""
    current = database.migrations(new, "current").strip()
    if current != NEVER and current >= (new.revision or ""):
        return Schema(current, [], recorded=True, legacy=True)  # a way back: it needs no plan, and so no engine for one
    planned = plan_migrations(database, new)
    revisions = [migration.revision for migration in planned]
    first = 0 if current == NEVER else revisions.index(current) + 1 if current in revisions else len(planned)
    return Schema(None if current == NEVER else current, planned[first:], recorded=True, legacy=True)


def _trusted(database: AskedDatabase, new: Artifact, old: Artifact | None, applied: list[str]) -> tuple[str, ...]:
    """Return which of the `applied` migrations are in `new` as they are in the release that serves.

    Raise `DeployFailed` where one has another form.
    """
    # Only the release that serves knows the form in which they ran.
    try:
        theirs = {each.revision: each.sql for each in plan_migrations(database, old)} if old else {}
    except SlipwayError:
        theirs = {}  # Python code, which an earlier release cannot write down
    mine = {each.revision: each.sql for each in plan_migrations(database, new)}
    known = [revision for revision in applied if theirs.get(revision)]
    edited = [revision for revision in known if theirs[revision].split() != mine[revision].split()]
    if edited:
        raise DeployFailed(
            f"migration {edited[0]} was applied in another form and would not run again: take the change back, and"
            " write it as a new one (`nox -s migration -- MESSAGE`)"
        )
    unknown = [revision for revision in applied if revision not in known]
    if unknown:
        log.warning(
            f"migrations applied before the database kept their checksums: {', '.join(unknown)} recorded as unknown; a"
            " change of them will not be noticed"
        )
    return tuple(known)


def _migration(one: dict[str, Any]) -> Migration:
    return Migration(
        revision=one["revision"],
        message=one["message"],
        contract_after=one["contract_after"],
        sql=one["sql"],
        destroys=one.get("destroys"),
        losses=tuple(Loss(loss["what"], loss["rows"]) for loss in one.get("losses", [])),
        proven=tuple(one.get("proven", ())),
        writes=tuple(Write(write["what"], write["rows"]) for write in one.get("writes", [])),
    )


def _option(name: str, values: Iterable[str]) -> list[str]:
    given = [value for value in dict.fromkeys(values) if value]
    return [name, *given] if given else []


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        raise SlipwayError(f"the migrations' command said `{said.strip()[-200:]}`")
    return lines[-1]
