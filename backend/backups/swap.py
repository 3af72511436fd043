"""What was restored takes the place of what serves, by name; and what differs between the two."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
from redis.exceptions import RedisError

from backend.backups import facts
from backend.backups.errors import BackupFailed
from backend.backups.restore import BEFORE
from backend.backups.server import Server, checked_name, mark, marks
from backend.cache import Cache
from backend.metrics import Metrics
from backend.rights.statements import identifier

__all__ = ["compare", "swap"]

Say = Callable[[str], None]

NAME_BYTES = 63
END_SECONDS = 10.0
POLL_SECONDS = 0.05
HEAL_TRIES = 20
SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()"
OPEN = "SELECT datname, datallowconn FROM pg_database WHERE datname = ANY($1)"
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


async def compare(server: Server, database: str) -> dict[str, Any]:
    """Return the rows of each table in `database` and in the one that serves, and since when they may differ."""
    serving = server.serving
    rows = {}
    for name in (database, serving):
        async with server.as_owner(name) as connection:
            rows[name] = {table.name: table.rows for table in await _counted(connection)}
    async with server.as_administrator() as connection:
        since = (await marks(connection, database)).get("snapshot")
    tables = [
        {"name": name, "rows": rows[database].get(name), "serving": rows[serving].get(name)}
        for name in sorted(rows[database].keys() | rows[serving].keys())
    ]
    lost = sum(max((table["serving"] or 0) - (table["rows"] or 0), 0) for table in tables)
    return {"database": database, "serving": serving, "since": since, "lost": lost, "tables": tables}


async def _counted(connection: asyncpg.Connection[Any]) -> Any:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await facts.count_rows(connection, await facts.tables(connection))


async def swap(server: Server, old: str, new: str, say: Say) -> dict[str, Any]:
    """Give the database `new` the name of `old`, which serves, and `old` another one. A failure leaves both as before.

    After a kill, the same call goes on where that one was. Raise `BackupFailed` where it cannot be done.
    """
    checked_name(new)
    async with server.alone() as connection:
        there = {row["datname"]: row["datallowconn"] for row in await connection.fetch(OPEN, [old, new])}
        if old not in there:
            raise BackupFailed(f"there is no database {old}")
        if new not in there:
            return await _finish(connection, server, old, new, is_open=there[old], say=say)
        if not there[new]:
            await _open(connection, new)  # a swap that was killed had closed it
        sessions = await _end_refresh_families(server, new, say)
        before = _aside(old)
        began = time.monotonic()
        swapped = {"from": new, "before": before, "sessions": sessions, "began": datetime.now(UTC).isoformat()}
        try:
            await _close(connection, old, new)
            caches = await _end_caches(server, say)
            async with connection.transaction():
                await mark(connection, new, swapped=swapped)
                await connection.execute(f"ALTER DATABASE {identifier(old)} RENAME TO {identifier(before)}")
                await connection.execute(f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(old)}")
        except BaseException as error:
            await asyncio.shield(_heal(server, [old, new], say))
            if isinstance(error, asyncpg.PostgresError):
                raise BackupFailed(f"not swapped, both are as they were: {error}") from error
            raise
        await asyncio.shield(_heal(server, [old, before], say))
    seconds = round(time.monotonic() - began, 3)
    say(f"{new} serves as {old}, {before} is what served; nobody was let in for {seconds:.2f} s")
    return {"database": old, "before": before, "seconds": seconds, "sessions": sessions, "caches": caches}


async def _finish(
    connection: asyncpg.Connection[Any], server: Server, old: str, new: str, *, is_open: bool, say: Say
) -> dict[str, Any]:
    """Return what the swap answers that was killed, or was done: `new` has the name `old` already."""
    swapped = (await marks(connection, old)).get("swapped", {})
    if swapped.get("from") != new:
        raise BackupFailed(f"there is no database {new}: `restore` makes it")
    seconds: float | None = None
    caches: int | None = None
    if not is_open:
        caches = await _end_caches(server, say)
        await _heal(server, [old, swapped["before"]], say)
        seconds = (datetime.now(UTC) - datetime.fromisoformat(swapped["began"])).total_seconds()
        say(f"{new} serves as {old}: a swap that was killed is finished; nobody was let in for {seconds:.0f} s")
    return {
        "database": old,
        "before": swapped["before"],
        "seconds": seconds,
        "sessions": swapped["sessions"],
        "caches": caches,
    }


async def _end_refresh_families(server: Server, database: str, say: Say) -> int:
    """End all sessions of accounts in `database`: those that were ended since the backup would live again."""
    async with server.as_owner(database) as connection:
        if await connection.fetchval("SELECT to_regclass('account_sessions')") is None:
            return 0
        ended = int((await connection.execute("DELETE FROM account_sessions")).split()[-1])
    say(f"{database}: {ended} sessions of accounts were ended: their people sign in again")
    return ended


async def _close(connection: asyncpg.Connection[Any], *databases: str) -> None:
    """Let nobody into `databases`, and end the sessions there. Raise `BackupFailed` where one stays."""
    for database in databases:
        await connection.execute(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS false")
    deadline = time.monotonic() + END_SECONDS
    while pids := [row["pid"] for row in await connection.fetch(SESSIONS, list(databases))]:
        if time.monotonic() > deadline:
            raise BackupFailed(f"not swapped, both are as they were: session {pids[0]} does not end")
        for pid in pids:
            await connection.execute("SELECT pg_terminate_backend($1)", pid)
        await asyncio.sleep(POLL_SECONDS)


async def _open(connection: asyncpg.Connection[Any], *databases: str) -> None:
    for row in await connection.fetch(OPEN, list(databases)):
        if not row["datallowconn"]:
            await connection.execute(f"ALTER DATABASE {identifier(row['datname'])} ALLOW_CONNECTIONS true")


async def _heal(server: Server, databases: list[str], say: Say) -> None:
    """Let everybody in again, in a session of its own, as the other one may be gone."""
    for left in reversed(range(HEAL_TRIES)):
        try:
            async with server.as_administrator() as connection:
                await _open(connection, *databases)
        except LOST as error:
            if not left:
                say(f"{databases[0]} still lets nobody in ({error}): call `swap` once more when PostgreSQL is back")
                raise
            await asyncio.sleep(0.5)
        else:
            return


async def _end_caches(server: Server, say: Say) -> int | None:
    """End the generations of all cached answers, which are of the other database; None where Redis does not answer."""
    cache = Cache(server.settings, Metrics(server.settings.release))
    try:
        return await cache.forget_all()
    except (RedisError, OSError) as error:  # OSError has TimeoutError
        seconds = server.settings.redis_expire_seconds
        say(f"redis: {error or type(error).__name__}: answers of before may be served for {seconds} s")
        return None
    finally:
        with contextlib.suppress(RedisError, OSError):
            await cache.close()


def _aside(old: str) -> str:
    """Return the name of the database `old` once it is put aside. Raise `BackupFailed` where it would be too long."""
    now = datetime.now(UTC)
    name = f"{old}{BEFORE}{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03}Z"
    if len(name.encode()) > NAME_BYTES:
        raise BackupFailed(f"{old}: {name} would be longer than the names of PostgreSQL are ({NAME_BYTES} bytes)")
    return name
