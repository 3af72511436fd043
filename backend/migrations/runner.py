"""Runs of migrations on a database: exclusive (a lock), brief (timeouts), all or nothing (a transaction each)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import asyncpg
from alembic import command, op
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from backend.migrations.history import History, adopt, compare, count_rows, forget, read_history, record, settled
from backend.migrations.plan import Planned, alembic_config, plan, render
from backend.migrations.statements import arrivals
from backend.postgres import connect_directly
from backend.settings import Settings

__all__ = ["NEVER", "MigrationFailed", "Wanted", "current_revision", "stand_alone", "status", "upgrade"]

NEVER = "none"  # the revision of a database that was never migrated
CONNECT_SECONDS = 5.0
LOCK_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.2
LOCK_KEY = 0x736C_6970_7761_79  # the pipeline's name in ASCII
# A statement that waits for a table's lock makes every later query of that table wait behind it.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
CONCURRENTLY_TIMEOUT = "30min"  # blocks nobody, but reads the whole table
BUILT_INDEX = re.compile(
    r'CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")+"|[a-z_][\w$]*)',
    re.IGNORECASE,
)


class MigrationFailed(Exception):
    """A migration that failed. The message is one line: which, why, and what state the database is in."""


@dataclass(frozen=True)
class Wanted:
    """The parameters of an upgrade.

    `to`: the revision to stop at. `expected`: the revision that the database must be at (`none`: never migrated).
    `kept`: the revisions of the kept releases. `trusted`: revisions that were applied in the form they have here, where
    no history says so. `forgotten`: an applied revision to forget first.
    """

    to: str | None = None
    expected: str | None = None
    kept: Collection[str] = ()
    trusted: Collection[str] = ()
    forgotten: str | None = None


async def current_revision(settings: Settings) -> str | None:
    """Return the revision of the database, None if it has none. Raise `MigrationFailed` if it cannot be reached."""
    async with _connected(settings) as connection:
        return (await connection.run_sync(read_history)).revision


async def status(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """Return what the database has and lacks of this release's migrations, ready for JSON; nothing is changed.

    Raise `MigrationFailed` when the database cannot be reached.
    """
    mine = plan(None, wanted.to)
    async with _connected(settings) as connection:
        history = await connection.run_sync(read_history)
        comparison = compare(mine, history, kept=wanted.kept, forgotten=wanted.forgotten)
        pending, created, renamed = [], set[str](), set[str]()
        for step in comparison.pending:
            new, moved = arrivals(step.sql)
            created, renamed = created | new, renamed | moved
            rows = [await connection.run_sync(count_rows, loss, created, renamed) for loss in step.losses]
            lost = [{"what": loss.what, "rows": count} for loss, count in zip(step.losses, rows, strict=True)]
            pending.append({**asdict(step), "losses": lost})
        brought = settled(mine, history, wanted.kept).applied
    return {
        "revision": history.revision,
        "recorded": history.revision is None or (history.recorded and brought.keys() <= history.applied.keys()),
        "pending": pending,
        "problems": comparison.problems,
        "unknown": comparison.unknown,
    }


async def upgrade(settings: Settings, wanted: Wanted, report: Callable[[str], None]) -> None:
    """Bring the database to the newest revision, one `report` line per step. Raise `MigrationFailed` where it fails."""
    mine = plan(None, None)
    goal = plan(None, wanted.to)
    async with _connected(settings) as connection:
        await _lock(connection)
        history = await connection.run_sync(read_history)
        if wanted.expected not in (None, history.revision or NEVER):
            raise MigrationFailed(
                f"the database is at revision {history.revision or NEVER} and was at {wanted.expected} when it was"
                " checked: nothing was changed; deploy again"
            )
        comparison = compare(mine, history, kept=wanted.kept, forgotten=wanted.forgotten)
        if comparison.problems:
            raise MigrationFailed("\n".join(comparison.problems))
        begin = partial(adopt, mine=mine, history=history, kept=wanted.kept, trusted=wanted.trusted)
        history = await connection.run_sync(begin)
        if wanted.forgotten:
            history = await connection.run_sync(forget, wanted.forgotten, history)
            report(f"forgot {wanted.forgotten}: what it did to the database stays")
        await connection.commit()
        pending = [step for step in goal if step.revision not in history.applied]
        if pending:
            await _apply(connection, pending, report)
        else:
            report(_nothing_to_do(goal, history))


def _nothing_to_do(goal: Sequence[Planned], history: History) -> str:
    newer = bool(goal) and history.revision not in (None, *(step.revision for step in goal))
    note = f", newer than {goal[-1].revision}, which is fine" if newer else ""
    return f"nothing to do: the database is at revision {history.revision or NEVER}{note}"


def stand_alone(script: Script) -> None:
    """Make a `script` with `transactional = False` in its module run outside a transaction, and afresh after a failure.

    Raise `MigrationFailed` where it is not one `CONCURRENTLY` statement: the first would stay if the second failed.
    """
    if getattr(script.module, "transactional", True):
        return
    try:
        statements = render(script)
    except Exception:  # noqa: BLE001 - code that needs a connection
        statements = []
    if len(statements) != 1 or "CONCURRENTLY" not in statements[0].upper():
        raise MigrationFailed(
            f"{script.revision}: with `transactional = False` it must be one CONCURRENTLY statement; split it"
        )
    index, inner = BUILT_INDEX.search(statements[0]), script.module.upgrade

    def alone() -> None:
        migration = op.get_context()
        with migration.autocommit_block():
            connection = migration.connection
            assert connection is not None
            connection.execute(text(f"SET statement_timeout = '{CONCURRENTLY_TIMEOUT}'"))
            valid = _is_valid(connection, index[1]) if index else None
            if index and valid is False:
                connection.execute(text(f"DROP INDEX CONCURRENTLY {index[1]}"))
            if index and valid and "IF NOT EXISTS" not in index[0].upper():
                raise MigrationFailed(
                    f"{script.revision}: index {index[1]} exists already: if an earlier try of this migration built it,"
                    " write IF NOT EXISTS"
                )
            inner()
            connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))

    vars(script.module)["upgrade"] = alone


def _is_valid(connection: Connection, index: str) -> bool | None:
    """Return whether the index of that name is valid, None where there is none."""
    # One that is left over from a failed build is not: it costs writes and serves no read.
    query = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    valid: bool | None = connection.execute(query, {"name": index}).scalar()
    return valid


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[AsyncConnection]:
    async def connect() -> asyncpg.Connection[Any]:
        return await connect_directly(
            settings,
            seconds=CONNECT_SECONDS,
            server_settings={
                "application_name": f"{settings.project_name}-migrations",
                "lock_timeout": LOCK_TIMEOUT,
                "statement_timeout": STATEMENT_TIMEOUT,
            },
        )

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    try:
        connection = await engine.connect()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        raise MigrationFailed(
            f"cannot reach the database: {_reason(error)}; check POSTGRES_* or DATABASE_URL"
        ) from error
    try:
        yield connection
    except DBAPIError as error:
        raise MigrationFailed(f"the database refuses: {_reason(error)}") from error
    finally:
        await connection.close()
        await engine.dispose()


async def _lock(connection: AsyncConnection) -> None:
    """Take the lock of migrations for this session."""
    # By polling: a session that *waits* for the lock holds a snapshot, for which the holder's CREATE INDEX
    # CONCURRENTLY waits in turn.
    deadline = time.monotonic() + LOCK_SECONDS
    while not (await connection.execute(text(f"SELECT pg_try_advisory_lock({LOCK_KEY})"))).scalar():
        await connection.commit()
        if time.monotonic() > deadline:
            raise MigrationFailed(f"another migration held the lock for {LOCK_SECONDS:.0f} s; nothing was changed")
        await asyncio.sleep(LOCK_POLL_SECONDS)
    await connection.commit()


async def _apply(connection: AsyncConnection, pending: list[Planned], report: Callable[[str], None]) -> None:
    done: list[str] = []

    def applied(*, ctx: MigrationContext, **_: object) -> None:
        step = pending[len(done)]
        assert ctx.connection is not None
        record(ctx.connection, step)
        done.append(step.revision)
        report(f"applied {step.revision} {step.message}")

    def run(synchronous: Connection) -> None:
        config = alembic_config()
        config.attributes.update(connection=synchronous, on_version_apply=applied)
        command.upgrade(config, pending[-1].revision)

    try:
        await connection.run_sync(run)
    except MigrationFailed:
        raise
    except Exception as error:  # PostgreSQL's refusal, or whatever a migration's own code raises
        failed = pending[len(done)].revision
        state = f"the database is at revision {done[-1]}" if done else "the database is as it was"
        raise MigrationFailed(
            f"migration {failed} failed: {_reason(error)}; nothing of it is half applied, {state}"
        ) from error


def _reason(error: BaseException) -> str:
    """Return PostgreSQL's message on one line, without the wrapping of SQLAlchemy and the adapter."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    elif not isinstance(error, OSError | asyncpg.PostgresError | asyncpg.InterfaceError):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return " ".join(str(error).split()) or type(error).__name__
