"""Makes the roles on a server, and gives them their rights in one of its databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from backend.rights.names import Names
from backend.rights.statements import password_statement, rights, roles

__all__ = ["ensure", "ensure_rights", "set_password"]

LIMITS = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '60s'"


async def ensure(connection: asyncpg.Connection[Any], names: Names, passwords: Mapping[str, str] | None = None) -> None:
    """Make the roles of `names`, with their rights in the database that `connection` leads to. Twice does no harm.

    `passwords` are for those logins that have none yet. The owner must exist. `connection` is a superuser's; without
    `passwords`, one with CREATEROLE that is a member of the owner will do.
    """
    async with connection.transaction():
        await connection.execute(LIMITS)
        for statement in roles(names):
            await connection.execute(statement)
        for login, password in (passwords or {}).items():
            await connection.execute(password_statement(login, password, only_if_none=True))
        await _give(connection, names)


async def ensure_rights(connection: asyncpg.Connection[Any], names: Names) -> None:
    """Give the roles of `names`, which must exist, their rights in the database of `connection`, after a restore.

    `connection` is a superuser's, or the owner's if it owns the database, too.
    """
    async with connection.transaction():
        await connection.execute(LIMITS)
        await _give(connection, names)


async def set_password(connection: asyncpg.Connection[Any], login: str, password: str) -> None:
    """Set the `password` of `login`; sessions that are open go on. `connection` is a superuser's, or of `login` itself.

    The server gets a hash, not the password. Raise `ValueError` for one that a client would change before it uses it.
    """
    await connection.execute(password_statement(login, password))


async def _give(connection: asyncpg.Connection[Any], names: Names) -> None:
    database = await connection.fetchval("SELECT current_database()")
    for statement in rights(names, database):
        await connection.execute(statement)
