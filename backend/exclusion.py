"""Backups and migrations exclude each other: by a lock of the database that backups share, and a migration has alone.

A dump keeps a lock on each table to its end. A migration would wait for it, and whoever uses the table behind that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from backend.beside import CONNECT_SECONDS
from backend.postgres import Connector, connect_once
from backend.settings import Settings

__all__ = [
    "BackupEnded",
    "BackupRuns",
    "Holder",
    "MigrationRuns",
    "backing_up",
    "backup_session_name",
    "cancel_backups",
    "holders_of",
    "keep_backups_out",
    "running_backups",
]

# The pipeline's name and a b, in ASCII; the migrations among themselves have another one.
BACKUP_KEY = 0x736C_6970_7761_7962
CLOSE_SECONDS = 5.0
POLL_SECONDS = 0.1
NOTICE_SECONDS = 0.2  # from PostgreSQL's word that a session ends to its end
CANCEL_SECONDS = 10.0
# The session of a backup waits for hours while `pg_dump` works on others: no timeout of the role or the server ends it.
# Where its host is gone, PostgreSQL notices within two minutes.
PATIENT = {
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}
MINUTE, HOUR = 60, 3600
ENDED = (
    "the session that keeps migrations out of the backup was ended: by a deploy with --cancel-backup, by"
    " an administrator, or with PostgreSQL; the backup ended with it"
)
# A role that may not read others' statistics sees neither age nor name of another role's session.
HOLDERS = """
    SELECT pid, coalesce(application_name, '') AS name, usename AS role,
        extract(epoch FROM clock_timestamp() - backend_start)::float AS seconds
    FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND mode = $2
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = $1 AND pid <> pg_backend_pid()
    ORDER BY backend_start
"""
# `pg_dump` has sessions of its own, which bear the name of the backup: without them, it would go on.
NAMESAKES = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (pid = $1 OR (application_name = $2 AND usename = $3 AND $2 <> ''))
    ORDER BY pid <> $1
"""
STILL_THERE = "SELECT pid FROM pg_stat_activity WHERE pid = ANY($1) LIMIT 1"


class BackupRuns(Exception):
    """A backup keeps migrations out. The message says which, since when, and what to do."""


class MigrationRuns(Exception):
    """A migration keeps backups out. The message says which, since when, and what to do."""


class BackupEnded(Exception):
    """Somebody ended the session that keeps migrations out of a backup, and so the backup. The message says who may."""


@dataclass(frozen=True)
class Holder:
    """A session that has the lock. `seconds`: its age; None where this role may not see it."""

    pid: int
    name: str
    role: str
    seconds: float | None

    def __str__(self) -> str:
        since = "" if self.seconds is None else f" since {_duration(self.seconds)}"
        named = f", {self.name}" if self.name else ""
        return f"{since} (pid {self.pid}{named})".lstrip()


def backup_session_name(settings: Settings) -> str:
    """Return the name that PostgreSQL shows of a backup's sessions: those of its `pg_dump`, too (PGAPPNAME)."""
    return f"{settings.project_name}-backup"


@asynccontextmanager
async def backing_up(settings: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Keep migrations out while the block runs; yield the session that does, which the block may use.

    Raise `MigrationRuns` at once where a migration has the database. Where the session ends before the block does, the
    block is cancelled, and `BackupEnded` raised. What the connection raises: see `connect_once`.
    """
    task, inside, lost = asyncio.current_task(), True, False
    assert task is not None

    def end(_: object) -> None:
        nonlocal lost
        if inside:
            lost = True
            task.cancel()

    session = {"application_name": backup_session_name(settings), **PATIENT}
    connection = await connect_once(Connector(settings, session, seconds=CONNECT_SECONDS, migrating=True))
    try:
        if not await connection.fetchval("SELECT pg_try_advisory_lock_shared($1)", BACKUP_KEY):
            raise MigrationRuns(await _migration(connection))
        connection.add_termination_listener(end)
        try:
            yield connection
        # What the block raises first is a matter of luck: a query of this session, or `pg_dump`, which loses its own.
        except (Exception, asyncio.CancelledError) as error:
            inside = False
            if not lost:
                await asyncio.sleep(NOTICE_SECONDS)
            if lost or connection.is_closed():
                raise BackupEnded(ENDED) from error
            raise
        finally:
            inside = False
            if lost:
                task.uncancel()
        if connection.is_closed():
            raise BackupEnded(ENDED)
    finally:
        await connection.close(timeout=CLOSE_SECONDS)


async def holders_of(connection: asyncpg.Connection[Any], key: int, *, shared: bool = False) -> list[Holder]:
    """Return who else has the advisory lock `key` of the database of `connection`, alone or `shared`, oldest first."""
    mode = "ShareLock" if shared else "ExclusiveLock"
    return [Holder(**row) for row in await connection.fetch(HOLDERS, key, mode)]


async def running_backups(connection: asyncpg.Connection[Any]) -> list[Holder]:
    """Return the backups that run on the database of `connection`, the oldest first."""
    return await holders_of(connection, BACKUP_KEY, shared=True)


async def keep_backups_out(connection: asyncpg.Connection[Any]) -> None:
    """Let no backup begin until this session ends. Raise `BackupRuns` at once where one runs."""
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", BACKUP_KEY):
        if holders := await running_backups(connection):
            raise BackupRuns(backup_runs(holders[0]))
        await asyncio.sleep(POLL_SECONDS)  # it has ended between the two questions


async def cancel_backups(connection: asyncpg.Connection[Any]) -> list[Holder]:
    """End the backups that run on the database of `connection`, and return them. Raise `BackupRuns` where one stays."""
    cancelled, ended = await running_backups(connection), list[int]()
    for holder in cancelled:
        for row in await connection.fetch(NAMESAKES, holder.pid, holder.name, holder.role):
            ended.append(row["pid"])
            try:
                await connection.execute(f"SELECT pg_terminate_backend({row['pid']})")
            except asyncpg.InsufficientPrivilegeError as error:
                raise BackupRuns(f"{backup_runs(holder)}; this role may not end it: {error}") from error
    deadline = time.monotonic() + CANCEL_SECONDS
    while left := await connection.fetchval(STILL_THERE, ended):
        if time.monotonic() > deadline:
            raise BackupRuns(
                f"a backup was told to end {CANCEL_SECONDS:.0f} s ago, and pid {left} of it is still there"
            )
        await asyncio.sleep(POLL_SECONDS)
    return cancelled


def backup_runs(holder: Holder) -> str:
    """Return the line that says who keeps migrations out, and what to do."""
    return f"a backup runs {holder}: wait, or deploy with --cancel-backup"


async def _migration(connection: asyncpg.Connection[Any]) -> str:
    holders = await holders_of(connection, BACKUP_KEY)
    # It may have ended since: whoever asks again will see.
    named = f" {holders[0]}" if holders else ""
    return f"a migration runs{named}: nothing was backed up; try again when it has ended"


def _duration(seconds: float) -> str:
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.0f} h"
