"""What a database has applied, and what a release's migrations would do to it.

Alembic keeps only the last revision (`alembic_version`). `alembic_history` has a row for each applied migration with a
checksum of what it did, written in the transaction that applied it. It shows which migrations were edited since, came
late or belong to another branch; the order of revisions shows none of that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.migrations.plan import Planned, same_form
from backend.migrations.statements import Loss, bare_name

__all__ = ["Comparison", "History", "adopt", "compare", "count_rows", "forget", "read_history", "record", "settled"]

COUNTED = 1_000_000  # rows; for a larger table, PostgreSQL's own estimate is used
NAMED_TABLES = 3

TABLE = """
    CREATE TABLE IF NOT EXISTS alembic_history (
        ordinal bigint GENERATED ALWAYS AS IDENTITY,
        revision text PRIMARY KEY,
        checksum text,
        message text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
TABLES = """
    SELECT relname FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
    AND relname NOT IN ('alembic_version', 'alembic_history', 'alembic_batches') ORDER BY relname
"""
TABLES_OF_SCHEMAS = """
    SELECT oid::regclass::text FROM pg_class
    WHERE relkind IN ('r', 'm')
    AND relnamespace IN (SELECT to_regnamespace(name) FROM unnest(CAST(:names AS text[])) AS name)
"""


@dataclass(frozen=True)
class History:
    """What a database records of its migrations.

    `versions`: the rows of `alembic_version`, None without that table. `applied`: revision → checksum, oldest first;
    None is an unknown checksum. `recorded`: whether there is such a history at all. `tables`: the other tables in the
    schema.
    """

    versions: tuple[str, ...] | None = None
    applied: dict[str, str | None] = field(default_factory=dict)
    recorded: bool = False
    tables: tuple[str, ...] = ()

    @property
    def revision(self) -> str | None:
        """The last revision, or None for a database that was never migrated."""
        return self.versions[0] if self.versions else None

    @property
    def last(self) -> str | None:
        """The migration that was applied last, as far as it is recorded."""
        return next(reversed(self.applied), None) if self.applied else None


@dataclass(frozen=True)
class Comparison:
    """A release's migrations compared with a database. `problems`: why none of `pending` may run, one line each."""

    pending: list[Planned]
    problems: list[str]
    unknown: list[str]  # applied, but in an unknown form


def read_history(connection: Connection) -> History:
    """Return what the database records of its migrations."""
    tables = connection.execute(text(TABLES)).scalars().all()
    versions = applied = None
    if _exists(connection, "alembic_version"):
        versions = connection.execute(text("SELECT version_num FROM alembic_version ORDER BY 1")).scalars().all()
    if _exists(connection, "alembic_history"):
        query = "SELECT revision, checksum FROM alembic_history ORDER BY ordinal"
        applied = {row.revision: row.checksum for row in connection.execute(text(query))}
    return History(
        versions=None if versions is None else tuple(versions),
        applied=applied or {},
        recorded=applied is not None,
        tables=tuple(tables),
    )


def compare(
    mine: Sequence[Planned], history: History, *, kept: Collection[str] = (), forgotten: str | None = None
) -> Comparison:
    """Compare a release's migrations, oldest first, with `history`.

    `kept`: the revisions of the kept releases, which may have brought the database to one of theirs.
    `forgotten`: an applied revision to forget first.
    """
    history = settled(mine, history, kept)
    if forgotten:
        refused = _why_not_forget(mine, history, forgotten)
        if refused:
            return Comparison([], [refused], [])
        history = without(history, forgotten)
    problem = _version_problem(mine, history, kept)
    if problem:
        return Comparison([], [problem], [])
    pending = [step for step in mine if step.revision not in history.applied]
    unknown = [step.revision for step in mine if history.applied.get(step.revision, "") is None]
    return Comparison(pending, _problems(mine, history, pending), unknown)


def _problems(mine: Sequence[Planned], history: History, pending: Sequence[Planned]) -> list[str]:
    """Return why `pending` must not run, one line each."""
    applied = history.applied
    edited = [
        step for step in mine if step.revision in applied and not same_form(applied[step.revision], step.checksum)
    ]
    last = max((index for index, step in enumerate(mine) if step.revision in applied), default=-1)
    late = [step for index, step in enumerate(mine) if step in pending and index < last]
    known = {step.revision for step in mine}
    foreign = [revision for revision in applied if revision not in known] if pending and not late else []
    problems = [_edited(step) for step in edited]
    problems += [
        f"migration {step.revision} ({step.message}) is not applied and would never run: {mine[last].revision}, which"
        f" comes after it, is applied. `nox -s migration -- --renumber {step.revision}` moves it to the end"
        for step in late
    ]
    if foreign:
        problems.append(
            f"the database has migration {foreign[-1]}, which is not in this release, so {pending[0].revision}"
            f" ({pending[0].message}) cannot follow it: merge the branch that has it and renumber yours"
            f" (`nox -s migration -- --renumber {pending[0].revision}`), or {_way_to_forget(foreign[-1])}"
        )
    return problems


def _version_problem(mine: Sequence[Planned], history: History, kept: Collection[str]) -> str | None:
    """Return what is wrong with `alembic_version` itself, or None if it can be trusted."""
    versions, revision = history.versions, history.revision
    if versions is not None and len(versions) > 1:
        return f"alembic_version has {len(versions)} rows ({', '.join(versions)}): keep only the correct one"
    if revision is None:
        lost = history.applied or (versions is not None and history.tables and not history.recorded)
        if not lost:
            return None
        has = f"{len(history.tables)} tables ({', '.join(history.tables[:NAMED_TABLES])}, …)"
        return (
            f"alembic_version is empty, and the database has {has}: set the revision that it is at:"
            f" `INSERT INTO alembic_version` with it ({history.last or 'NNNN'})"
        )
    last = history.last
    if revision not in {*(one.revision for one in mine), *history.applied, *kept}:
        way = f"{_set_version(last)} sets the correct one"
        way += f"; {_way_to_forget(revision)}" if last else ""
        return (
            f"alembic_version says `{revision}`, which is not a migration of this release, of the database's history"
            f" or of a kept release: {way}. Where the tables are another application's, set another POSTGRES_DB"
        )
    if last and revision in history.applied and revision != last:
        forget_newer = f"`DELETE FROM alembic_history WHERE revision > '{revision}'`"  # noqa: S608 - text for a person
        return (
            f"alembic_version says {revision}, and {last} was applied after it: {_set_version(last)}; where an older"
            f" dump was restored, {forget_newer} instead"
        )
    return None


def _set_version(revision: str | None) -> str:
    return f"`UPDATE alembic_version SET version_num = '{revision or 'NNNN'}'`"  # noqa: S608 - text for a person


def settled(mine: Sequence[Planned], history: History, kept: Collection[str]) -> History:
    """Return `history` plus what a release without one applied: all of `mine` up to the database's revision.

    Where only a kept release knows that revision, it is newer than `mine`, all of which came before.
    """
    order, revision = [one.revision for one in mine], history.revision
    if revision is None or revision in history.applied:
        return history
    if revision in order:
        brought = order[: order.index(revision) + 1]
    elif revision in kept:
        brought = [*(order if not history.applied else []), revision]
    else:
        return history
    return replace(history, applied=history.applied | {one: None for one in brought if one not in history.applied})


def without(history: History, revision: str) -> History:
    """Return `history` as it was before its last migration. What that did to the database stays."""
    applied = {name: checksum for name, checksum in history.applied.items() if name != revision}
    return replace(history, applied=applied, versions=(next(reversed(applied)),) if applied else None, tables=())


def _why_not_forget(mine: Sequence[Planned], history: History, revision: str) -> str | None:
    recorded = history.applied.get(revision)
    if recorded and any(one.revision == revision and same_form(recorded, one.checksum) for one in mine):
        return f"migration {revision} is applied in the form that it has here: there is nothing to forget"
    if revision not in history.applied and revision != history.revision:
        return f"migration {revision} is not applied here: there is nothing to forget"
    if revision in history.applied and revision != history.last:
        return f"migration {history.last} was applied after {revision}: forget that one first"
    if revision not in history.applied and not history.applied:
        return f"`{revision}` cannot be forgotten: nothing says what was applied before it"
    return None


def _edited(one: Planned) -> str:
    return (
        f"migration {one.revision} ({one.message}) was applied in another form and would not run again: take the change"
        f" back and write it as a new one (`nox -s migration -- MESSAGE`), or {_way_to_forget(one.revision)}"
    )


def _way_to_forget(revision: str) -> str:
    return (
        f"where no kept release needs it, deploy with `--forget-migration {revision}`: the database keeps what it did,"
        " and what follows runs on top of that"
    )


def adopt(
    connection: Connection,
    mine: Sequence[Planned],
    history: History,
    *,
    kept: Collection[str] = (),
    trusted: Collection[str] = (),
) -> History:
    """Start the history of a database that has none, or that a release without one migrated; return it.

    `trusted`: the revisions that were applied in the form that they have in `mine`, according to their release.
    """
    connection.execute(text(TABLE))
    applied, known = dict(settled(mine, history, kept).applied), {one.revision: one for one in mine}
    for revision in [one for one in applied if one not in history.applied]:
        step = known.get(revision)
        checksum = applied[revision] = step.checksum if step and revision in trusted else None
        _insert(connection, revision, checksum, step.message if step else "")
    return replace(history, applied=applied, recorded=True)


def record(connection: Connection, one: Planned) -> None:
    """Record that `one` was applied, in the transaction that applies it; forget how far its batches had come."""
    connection.execute(text("DROP TABLE IF EXISTS alembic_batches"))
    _insert(connection, one.revision, one.checksum, one.message)


def forget(connection: Connection, revision: str, history: History) -> History:
    """Remove the last applied migration from the history; return the rest."""
    left = without(history, revision)
    connection.execute(text("DELETE FROM alembic_history WHERE revision = :revision"), {"revision": revision})
    connection.execute(text("DELETE FROM alembic_version"))
    if left.revision:
        connection.execute(text("INSERT INTO alembic_version VALUES (:last)"), {"last": left.revision})
    return left


def count_rows(connection: Connection, loss: Loss, created: set[str], renamed: set[str]) -> int | None:
    """Return how many rows `loss` would throw away (an estimate above a million), or None if that is unknown.

    `created` and `renamed`: what the same release creates or renames before, so that the database lacks its name yet.
    """
    if not loss.names:
        return None
    try:
        names = list(loss.names)
        if loss.what.startswith("DROP SCHEMA"):
            names = list(connection.execute(text(TABLES_OF_SCHEMAS), {"names": names}).scalars())
        counts = []
        for name in names:
            if _exists(connection, name):
                counts.append(_count(connection, name))
            elif bare_name(name) in renamed or not (bare_name(name) in created or "IF EXISTS" in loss.what):
                return None
        return sum(counts)
    except DBAPIError:
        connection.rollback()
        return None


def _count(connection: Connection, name: str) -> int:
    query = f"SELECT count(*) FROM (SELECT FROM {name} LIMIT {COUNTED}) AS counted"  # noqa: S608 - from a migration
    counted = int(connection.execute(text(query)).scalar_one())
    if counted < COUNTED:
        return counted
    estimate = text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)")
    return max(COUNTED, int(connection.execute(estimate, {"name": name}).scalar_one()))


def _exists(connection: Connection, name: str) -> Any:
    return connection.execute(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}).scalar()


def _insert(connection: Connection, revision: str, checksum: str | None, message: str) -> None:
    query = "INSERT INTO alembic_history (revision, checksum, message) VALUES (:revision, :checksum, :message)"
    connection.execute(text(query), {"revision": revision, "checksum": checksum, "message": message})
