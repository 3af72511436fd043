"""The way to PostgreSQL: what a connection is made with, and what must not stand between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg

from backend.settings import Settings, SettingsError

__all__ = ["PooledConnection", "connect_arguments", "connect_directly", "must_be_direct", "refusal"]


class PooledConnection(asyncpg.InterfaceError):
    """A pooler answers instead of PostgreSQL."""

    # Between two transactions a pooler may change the session: prepared statements are then another session's, and a
    # session lock of a migration stays with somebody else. Even one that keeps the session may drop the timeouts.
    def __init__(self) -> None:
        super().__init__(
            "a connection pooler answers there, which mixes up sessions and drops timeouts: give the address of"
            " PostgreSQL itself"
        )


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """Return the arguments with which asyncpg connects to the database of `settings`."""
    if settings.database_url is not None:
        return {"dsn": settings.database_url.get_secret_value().replace("postgresql+asyncpg:", "postgresql:", 1)}
    password = settings.postgres_password
    return {
        "host": settings.postgres_host,
        "port": settings.postgres_port,
        "user": settings.postgres_user,
        "database": settings.postgres_db,
        "password": password.get_secret_value() if password else None,
    }


async def connect_directly(
    settings: Settings, *, seconds: float, server_settings: Mapping[str, str]
) -> asyncpg.Connection[Any]:
    """Return a connection to the database of `settings`, made within so many `seconds`.

    Raise `SettingsError` where these settings will never give one, and what asyncpg raises where there is none now.
    """
    try:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            **connect_arguments(settings), timeout=seconds, server_settings=dict(server_settings)
        )
        try:
            await must_be_direct(connection)
        except BaseException:
            connection.terminate()
            raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if reason := refusal(error):
            name = "DATABASE_URL" if settings.database_url else "POSTGRES_HOST"
            raise SettingsError([f"{name}: {reason}"]) from error
        raise
    return connection


async def must_be_direct(connection: Any) -> None:
    """Raise `PooledConnection` where the `connection` does not lead to PostgreSQL itself."""
    # A pooler makes up the number that it gives its client at the start. Asked without a prepared statement, which
    # would stay behind in somebody's session.
    try:
        await connection.execute(f"SELECT 1 / (pg_backend_pid() = {connection.get_server_pid()})::int")
    except asyncpg.DivisionByZeroError:
        raise PooledConnection from None


def refusal(error: BaseException | None) -> str | None:
    """Return why waiting will not help against the `error` of a connection; None where it may."""
    said = " ".join(str(error).split())
    match error:
        case PooledConnection():
            return said
        case asyncpg.ProtocolViolationError() if "startup parameter" in said:
            return f"{PooledConnection()} (it says `{said}`)"
        case asyncpg.UndefinedObjectError() | asyncpg.InvalidParameterValueError():
            return f"PostgreSQL refuses a parameter of the address (it says `{said}`): take it out"
        case asyncpg.ClientConfigurationError():
            return said
    return None
