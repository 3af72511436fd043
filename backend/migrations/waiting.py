"""What a migration that takes long is doing, and whom it waits for: asked beside it, on a session of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from backend.migrations.connection import open_session
from backend.settings import Settings

__all__ = ["Watcher", "watched"]

FIRST_SECONDS = 1.0  # less than `lock_timeout`, so that whoever held the lock is known when it ends the migration
EVERY_SECONDS = 2.0
REPEAT_SECONDS = 10.0  # how often a line is said again where nothing has changed but numbers
RECENT_SECONDS = 2.0
NAMED = 3
# Never a query's text: it has values of users. Without pg_read_all_stats, others' transactions have no visible age.
BLOCKERS = """
    SELECT blocker.pid, application_name, usename,
        extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds
    FROM unnest(pg_blocking_pids($1)) AS blocker (pid) LEFT JOIN pg_stat_activity AS activity USING (pid)
    ORDER BY xact_start
"""
BUILD = "SELECT phase, blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = $1"


class Watcher:
    """Looks at the session `pid`, and tells `report` what it does."""

    def __init__(self, settings: Settings, pid: int, report: Callable[[str], None]) -> None:
        self._settings, self._pid, self._report = settings, pid, report
        self._said, self._quiet = "", 0.0
        self._blockers, self._seen = "", 0.0

    @property
    def blockers(self) -> str:
        """Whom it waits for, or waited for until a moment ago; empty where that is nobody."""
        # A statement that is cancelled waits for nobody any more, and may be looked at once more.
        recent = time.monotonic() - self._seen < EVERY_SECONDS + RECENT_SECONDS
        return self._blockers if recent else ""

    async def run(self) -> None:
        """Look every two seconds until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        # A look that fails is no reason to fail a migration.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await open_session(self._settings, "migrations-watch")
            try:
                while True:
                    await self._look(connection)
                    await asyncio.sleep(EVERY_SECONDS)
            finally:
                connection.terminate()

    async def _look(self, connection: asyncpg.Connection[Any]) -> None:
        rows = await connection.fetch(BLOCKERS, self._pid)
        build = await connection.fetchrow(BUILD, self._pid)
        if rows:
            more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
            self._blockers, self._seen = ", ".join(map(_blocker, rows[:NAMED])) + more, time.monotonic()
        said = [build["phase"] + _share(build)] if build else []
        said += [f"waits for {self._blockers}"] if rows else []
        kinds = f"{build and build['phase']} {[row['pid'] for row in rows]}"
        self._quiet += EVERY_SECONDS
        if said and (kinds != self._said or self._quiet >= REPEAT_SECONDS):
            self._said, self._quiet = kinds, 0.0
            self._report("; ".join(said))


@asynccontextmanager
async def watched(settings: Settings, pid: int, report: Callable[[str], None]) -> AsyncIterator[Watcher]:
    """Watch the session `pid` while the block runs."""
    watcher = Watcher(settings, pid, report)
    task = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.wait([task])


def _blocker(row: asyncpg.Record) -> str:
    if not row["pid"]:
        return "a prepared transaction (pg_prepared_xacts)"
    name = row["application_name"] or row["usename"] or "no name"
    age = "" if row["seconds"] is None else f", its transaction is open for {row['seconds']} s"
    return f"pid {row['pid']} ({name}{age})"


def _share(build: asyncpg.Record) -> str:
    return f", {build['blocks_done'] * 100 // build['blocks_total']} %" if build["blocks_total"] else ""
