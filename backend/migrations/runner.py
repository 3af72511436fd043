"""Runs of migrations on a database: exclusive (a lock), bounded (timeouts), all or nothing (a transaction each)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import asyncpg
from alembic import command
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.exclusion import BackupRuns, cancel_backups, keep_backups_out, running_backups
from backend.migrations.alone import leftovers
from backend.migrations.connection import MigrationFailed, connected, reason, take_lock
from backend.migrations.history import History, adopt, compare, count_rows, forget, read_history, record, settled
from backend.migrations.plan import Planned, alembic_config, plan
from backend.migrations.reality import locked_rows, obstacles
from backend.migrations.rehearsal import furnish
from backend.migrations.statements import arrivals
from backend.migrations.waiting import watched
from backend.settings import Settings

__all__ = ["NEVER", "Wanted", "current_revision", "status", "upgrade"]

NEVER = "none"  # the revision of a database that was never migrated
LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Wanted:
    """The parameters of an upgrade.

    `to`: the revision to stop at. `expected`: the revision that the database must be at (`none`: never migrated).
    `kept`: the revisions of the kept releases. `trusted`: revisions that were applied in the form they have here, where
    no history says so. `forgotten`: an applied revision to forget first. `seconds`: how long all migrations together
    may take. `rehearsal`: on a throwaway database, whose server has none of the roles that the migrations name.
    `cancel_backup`: end a backup that runs, instead of leaving the database to it.
    """

    to: str | None = None
    expected: str | None = None
    kept: Collection[str] = ()
    trusted: Collection[str] = ()
    forgotten: str | None = None
    seconds: float = LIMIT_SECONDS
    rehearsal: bool = False
    cancel_backup: bool = False


async def current_revision(settings: Settings) -> str | None:
    """Return the revision of the database, None if it has none. Raise `MigrationFailed` if it cannot be reached."""
    async with connected(settings) as connection:
        return (await connection.run_sync(read_history)).revision


async def status(settings: Settings, wanted: Wanted) -> dict[str, Any]:
    """Return what the database has and lacks of this release's migrations, ready for JSON; nothing is changed.

    Raise `MigrationFailed` when the database cannot be reached.
    """
    mine = plan(None, wanted.to)
    async with connected(settings) as connection:
        history = await connection.run_sync(read_history)
        comparison = compare(mine, history, kept=wanted.kept, forgotten=wanted.forgotten)
        everything = ";\n".join(step.sql for step in comparison.pending)
        pending, created, renamed, problems = [], set[str](), set[str](), [*comparison.problems]
        for step in comparison.pending:
            new, moved = arrivals(step.sql)
            created, renamed = created | new, renamed | moved
            rows = [await connection.run_sync(count_rows, loss, created, renamed) for loss in step.losses]
            lost = [{"what": loss.what, "rows": count} for loss, count in zip(step.losses, rows, strict=True)]
            locked = [
                {"what": write.what, "rows": await connection.run_sync(locked_rows, write)} for write in step.writes
            ]
            pending.append({**asdict(step), "losses": lost, "writes": locked})
            problems += await connection.run_sync(obstacles, step, everything)
        brought = settled(mine, history, wanted.kept).applied
        backups = await running_backups(await _session(connection)) if pending else []
    return {
        "revision": history.revision,
        "recorded": history.revision is None or (history.recorded and brought.keys() <= history.applied.keys()),
        "pending": pending,
        "problems": problems,
        "unknown": comparison.unknown,
        "backup": str(backups[0]) if backups else None,
    }


async def upgrade(settings: Settings, wanted: Wanted, report: Callable[[str], None]) -> None:
    """Bring the database to the newest revision, one `report` line per step. Raise `MigrationFailed` where it fails."""
    mine = plan(None, None)
    goal = plan(None, wanted.to)
    async with connected(settings) as connection:
        await take_lock(connection)
        history = await connection.run_sync(read_history)
        if wanted.expected not in (None, history.revision or NEVER):
            raise MigrationFailed(
                f"the database is at revision {history.revision or NEVER} and was at {wanted.expected} when it was"
                " checked: nothing was changed; deploy again"
            )
        comparison = compare(mine, history, kept=wanted.kept, forgotten=wanted.forgotten)
        if comparison.problems:
            raise MigrationFailed("\n".join(comparison.problems))
        if {step.revision for step in goal} & {step.revision for step in comparison.pending}:
            await _exclude_backups(connection, report, cancel=wanted.cancel_backup)
        begin = partial(adopt, mine=mine, history=history, kept=wanted.kept, trusted=wanted.trusted)
        history = await connection.run_sync(begin)
        if wanted.forgotten:
            history = await connection.run_sync(forget, wanted.forgotten, history)
            report(f"forgot {wanted.forgotten}: what it did to the database stays")
        await connection.commit()
        pending = [step for step in goal if step.revision not in history.applied]
        if wanted.rehearsal:
            await furnish(settings, ";\n".join(step.sql for step in pending))
        if pending:
            await _apply(settings, connection, pending, report, wanted.seconds)
        else:
            report(_nothing_to_do(goal, history))


async def _session(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    """Return the session of `connection` as asyncpg has it."""
    session = (await connection.get_raw_connection()).driver_connection
    assert isinstance(session, asyncpg.Connection)
    return session


async def _exclude_backups(connection: AsyncConnection, report: Callable[[str], None], *, cancel: bool) -> None:
    """Let no backup begin until this session ends. Raise `MigrationFailed` where one runs, unless it is to `cancel`."""
    await connection.commit()  # in a transaction, PostgreSQL shows the sessions that there were when it was first asked
    session = await _session(connection)
    try:
        for holder in await cancel_backups(session) if cancel else ():
            report(f"ended the backup that ran {holder}")
        await keep_backups_out(session)
    except BackupRuns as error:
        raise MigrationFailed(f"{error}; nothing was changed") from error


def _nothing_to_do(goal: Sequence[Planned], history: History) -> str:
    newer = bool(goal) and history.revision not in (None, *(step.revision for step in goal))
    note = f", newer than {goal[-1].revision}, which is fine" if newer else ""
    return f"nothing to do: the database is at revision {history.revision or NEVER}{note}"


async def _apply(
    settings: Settings,
    connection: AsyncConnection,
    pending: list[Planned],
    report: Callable[[str], None],
    seconds: float,
) -> None:
    done: list[str] = []

    def applied(*, ctx: MigrationContext, **_: object) -> None:
        step = pending[len(done)]
        assert ctx.connection is not None
        record(ctx.connection, step)
        done.append(step.revision)
        report(f"applied {step.revision} {step.message}")

    def run(synchronous: Connection) -> None:
        config = alembic_config()
        config.attributes.update(connection=synchronous, on_version_apply=applied, seconds=seconds, report=say)
        command.upgrade(config, pending[-1].revision)

    def say(line: str) -> None:
        report(f"migration {pending[min(len(done), len(pending) - 1)].revision}: {line}")

    pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    await connection.commit()
    async with watched(settings, pid, say) as watcher:
        why = await _why_it_failed(connection, run, seconds)
    if why is None:
        return
    failed = pending[len(done)]
    waited = f"; it waited for {watcher.blockers}" if watcher.blockers and "timeout" in why else ""
    left = await leftovers(settings, failed.sql)
    state = f"the database is at revision {done[-1]}" if done else "the database is as it was"
    state = f"{left}, else {state}" if left else f"nothing of it is half applied, {state}"
    raise MigrationFailed(f"migration {failed.revision} failed: {why}{waited}; {state}")


async def _why_it_failed(connection: AsyncConnection, run: Callable[[Connection], None], seconds: float) -> str | None:
    """Let `run` apply migrations for at most so many `seconds`; return why it could not, or None."""
    task = asyncio.current_task()
    assert task is not None
    try:
        async with asyncio.timeout(seconds) as limit:
            await connection.run_sync(run)
    except MigrationFailed:
        raise
    # PostgreSQL's refusal, whatever a migration's own code raises, or a cancelled statement: of the last, Alembic makes
    # an error of its own where it has no transaction.
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
        if limit.expired():
            return f"the migrations of a deploy may take {seconds:.0f} s (`migration_timeout`)"
        return "it was stopped" if task.cancelling() else reason(error)
    return None
