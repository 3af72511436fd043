"""The schema of an environment's database: what it has and lacks of a release's migrations.

The release's own command answers where the database is (`python -m backend.migrations status`): what was applied, and
in which form, is in the database itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Artifact, Loss, Migration

__all__ = ["Schema", "SchemaTarget", "ask_schema", "plan_migrations"]

NEVER = "none"  # the revision of a database that was never migrated


class SchemaTarget(Protocol):
    """What this module needs of a target."""

    def database_runs(self) -> bool:
        """Return whether the database can be asked now."""

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations command of `release`, within reach of the `database` or not; return what it printed."""


@dataclass(frozen=True)
class Schema:
    """What the database has and lacks of a release's migrations.

    `revision`: None where it was never migrated. `recorded`: whether it has a history of them; `trusted`: those that
    will be recorded as they are now, as the release that serves has them in that form, too.
    """

    revision: str | None
    pending: list[Migration]
    recorded: bool
    trusted: tuple[str, ...] = ()

    def upgrade_arguments(self, kept: Iterable[str], forgotten: str | None) -> list[str]:
        """Return what the migrations command is told, so that it does what was checked and nothing else."""
        return [
            *("upgrade", "--expect", self.revision or NEVER),
            *_option("--kept", kept),
            *_option("--trust", self.trusted),
            *_option("--forget", [forgotten] if forgotten else []),
        ]


def ask_schema(
    target: SchemaTarget,
    new: Artifact,
    old: Artifact | None,
    *,
    kept: Iterable[str],
    forgotten: str | None,
    warn: Callable[[str], None],
) -> Schema | None:
    """Return what the database has of the migrations of `new`; None where there is no database to ask yet.

    `old` serves; `kept` are the revisions of the releases that are kept; `forgotten` is an applied one to forget.
    Raise `DeployFailed` where what was applied and the files disagree.
    """
    if not target.database_runs():
        return None
    asked = ["status", *_option("--kept", kept), *_option("--forget", [forgotten] if forgotten else [])]
    try:
        said: dict[str, Any] = json.loads(_last_line(target.migrations(new, *asked)))
    except SlipwayError as error:
        text = str(error)
        if "database" in text and "does not exist" in text:
            return None  # a deploy was killed before it made the database
        if "invalid choice" in text:
            return _ask_without_history(target, new)
        raise
    if said["problems"]:
        raise DeployFailed(*said["problems"])
    trusted = () if said["recorded"] else _trusted(target, new, old, said["unknown"], warn)
    return Schema(said["revision"], [_migration(one) for one in said["pending"]], said["recorded"], trusted)


def plan_migrations(target: SchemaTarget, release: Artifact) -> list[Migration]:
    """Return all migrations of `release`, oldest first, as they are for an empty database."""
    if release.revision is None:
        return []
    planned = json.loads(target.migrations(release, "plan", "--from", NEVER, database=False))
    return [_migration({**one, "losses": []}) for one in planned]


def _ask_without_history(target: SchemaTarget, new: Artifact) -> Schema:
    """Ask by the command of a release that was made before databases had a history."""
    current = target.migrations(new, "current").strip()
    planned = plan_migrations(target, new)
    revisions = [one.revision for one in planned]
    first = 0 if current == NEVER else revisions.index(current) + 1 if current in revisions else len(planned)
    return Schema(None if current == NEVER else current, planned[first:], recorded=True)


def _trusted(
    target: SchemaTarget, new: Artifact, old: Artifact | None, applied: list[str], warn: Callable[[str], None]
) -> tuple[str, ...]:
    """Return which of the `applied` migrations are in `new` as they are in the release that serves.

    Raise `DeployFailed` where one has another form: which of them ran is known by that release alone.
    """
    try:
        theirs = {one.revision: one.sql for one in plan_migrations(target, old)} if old else {}
    except SlipwayError:
        theirs = {}  # Python code, which a release of before cannot write down
    mine = {one.revision: one.sql for one in plan_migrations(target, new)}
    known = [revision for revision in applied if theirs.get(revision)]
    edited = [one for one in known if theirs[one].split() != mine[one].split()]
    if edited:
        raise DeployFailed(
            f"migration {edited[0]} was applied in another form and would not run again: take the change back, and"
            " write it as a new one (`nox -s migration -- MESSAGE`)"
        )
    unknown = [revision for revision in applied if revision not in known]
    if unknown:
        warn(
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
    )


def _option(name: str, values: Iterable[str]) -> list[str]:
    given = [value for value in dict.fromkeys(values) if value]
    return [name, *given] if given else []


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if not lines:
        raise SlipwayError(f"the migrations' command said `{said.strip()[-200:]}`")
    return lines[-1]
