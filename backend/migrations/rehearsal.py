"""What a throwaway database needs so that migrations can be rehearsed as its owner, who is no superuser."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

from backend.beside import CONNECT_SECONDS
from backend.migrations.connection import MigrationFailed, reason
from backend.migrations.named import extensions_of, roles_of
from backend.postgres import Connector
from backend.rights.statements import identifier
from backend.settings import Settings

__all__ = ["furnish"]

# Of the throwaway server; a pipeline of before has none, and migrates as the superuser itself.
USER, PASSWORD = "POSTGRES_SUPERUSER", "POSTGRES_SUPERUSER_PASSWORD"
ROLE = "SELECT true FROM pg_roles WHERE rolname = $1"
# On the real server, an administrator has made those that its owner may not; `obstacles` asked for them there.
BY_SUPERUSERS = "SELECT NOT bool_or(trusted) FROM pg_available_extension_versions WHERE name = $1"


async def furnish(settings: Settings, sql: str) -> None:
    """Make what an administrator has made on the real server, and `sql` names: roles, and extensions.

    Raise `MigrationFailed` where that fails.
    """
    try:
        await _furnish(settings, sql)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationFailed(f"the throwaway server refuses: {reason(error)}") from error


async def _furnish(settings: Settings, sql: str) -> None:
    connection = await _connect(settings)
    try:
        for name in sorted(roles_of(sql)):
            if not await connection.fetchval(ROLE, name):
                await connection.execute(f"CREATE ROLE {identifier(name)}")
        for name in sorted(extensions_of(sql) if os.environ.get(USER) else ()):
            if await connection.fetchval(BY_SUPERUSERS, name):
                await connection.execute(f"CREATE EXTENSION IF NOT EXISTS {identifier(name)}")
    finally:
        await connection.close()


async def _connect(settings: Settings) -> asyncpg.Connection[Any]:
    user = os.environ.get(USER)
    if not user:
        return await Connector(settings, {}, seconds=CONNECT_SECONDS, migrating=True).connect()
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        host=settings.postgres_host,
        port=settings.postgres_port,
        database=settings.postgres_db,
        user=user,
        password=os.environ.get(PASSWORD),
        timeout=CONNECT_SECONDS,
    )
    return connection
