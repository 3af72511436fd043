"""The connection on which migrations run: its timeouts, the lock of all migrations, and what a failure of it means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from backend.beside import CONNECT_SECONDS
from backend.postgres import Connector, connect_once
from backend.settings import Settings

__all__ = [
    "LOCK_TIMEOUT",
    "STATEMENT_TIMEOUT",
    "MigrationFailed",
    "connected",
    "open_session",
    "reason",
    "stop",
    "take_lock",
]

LOCK_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.2
LOCK_KEY = 0x736C_6970_7761_79  # the pipeline's name in ASCII
# A statement that waits for a table's lock makes every later query of that table wait behind it.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
# How often PostgreSQL looks, in the middle of a statement, whether its client is still there. Without it, the statement
# of a client that was killed goes on to its end.
CLIENT_CHECK = "1s"
HOLDERS = f"""
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32) | objid::bigint = {LOCK_KEY}
"""  # noqa: S608 - a constant


class MigrationFailed(Exception):
    """A migration that failed. The message is one line: which, why, and what state the database is in."""


async def open_session(settings: Settings, role: str = "migrations") -> asyncpg.Connection[Any]:
    """Return a session with the timeouts of a migration. `role` ends the name by which PostgreSQL lists it."""
    session = {
        "application_name": f"{settings.project_name}-{role}",
        "lock_timeout": LOCK_TIMEOUT,
        "statement_timeout": STATEMENT_TIMEOUT,
        "client_connection_check_interval": CLIENT_CHECK,
    }
    return await connect_once(Connector(settings, session, seconds=CONNECT_SECONDS, migrating=True))


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[AsyncConnection]:
    """Yield a connection to the database. Raise `MigrationFailed` where it cannot be reached."""
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: open_session(settings), poolclass=NullPool
    )
    try:
        connection = await engine.connect()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        raise MigrationFailed(
            f"cannot reach the database: {reason(error)}; check POSTGRES_*, DATABASE_URL or MIGRATION_DATABASE_URL"
        ) from error
    try:
        yield connection
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationFailed(f"the database refuses: {reason(error)}") from error
    finally:
        await connection.close()
        await engine.dispose()


async def take_lock(connection: AsyncConnection) -> None:
    """Take the lock of migrations for this session. Raise `MigrationFailed` where another one keeps it."""
    # By polling: a session that *waits* for the lock holds a snapshot, for which the holder's CREATE INDEX
    # CONCURRENTLY waits in turn.
    deadline = time.monotonic() + LOCK_SECONDS
    while not (await connection.execute(text(f"SELECT pg_try_advisory_lock({LOCK_KEY})"))).scalar():
        holders = (await connection.execute(text(HOLDERS))).scalars().all()
        await connection.commit()
        if time.monotonic() > deadline:
            named = f" (pid {', '.join(map(str, holders))})" if holders else ""
            raise MigrationFailed(
                f"another migration{named} held the lock for {LOCK_SECONDS:.0f} s; nothing was changed. If nobody waits"
                " for it any more, `python -m backend.migrations stop` ends it"
            )
        await asyncio.sleep(LOCK_POLL_SECONDS)
    await connection.commit()


async def stop(settings: Settings) -> list[int]:
    """End the migrations that run on the database, whoever began them; return the process ids of their sessions."""
    async with connected(settings) as connection:
        # In two steps: a condition that ends a session could be asked of each row before the others sort them out.
        holders = (await connection.execute(text(HOLDERS))).scalars().all()
        for pid in holders:
            await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    return list(holders)


def reason(error: BaseException) -> str:
    """Return PostgreSQL's message on one line, without the wrapping of SQLAlchemy and the adapter."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    elif not isinstance(error, OSError | asyncpg.PostgresError | asyncpg.InterfaceError):
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return " ".join(str(error).split()) or type(error).__name__
