"""The way to PostgreSQL: what a connection is made with, and what may stand between."""

from __future__ import annotations

import copy
import ssl
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import asyncpg

from backend.settings import Settings, SettingsError
from backend.urls import PostgresAddress, postgres_address

__all__ = ["Connector", "PooledConnection", "connect_once", "refusal"]

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
LIMITS = "SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in TIMEOUTS)
# Under which name the server knows this very statement. Asked in one transaction, so that the session which prepares it
# is the one that is asked.
STATEMENTS = "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT name FROM pg_prepared_statements %'"
OWN_STATEMENT = "__asyncpg_"
NEEDED = "PgBouncer does from 1.21 on, with max_prepared_statements above 0"
MIGRATE_DIRECTLY = (
    "a connection pooler answers there, and the locks of migrations and backups belong to a session: give the address"
    " of PostgreSQL itself in MIGRATION_DATABASE_URL"
)
NEXT_HOST = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)


class PooledConnection(asyncpg.InterfaceError):
    """A pooler answers instead of PostgreSQL, and would not do. The message says what would."""


class Connector:
    """Makes connections to the database of `settings`: directly, or through a pooler that keeps prepared statements.

    `session`: the parameters of each session, where the address does not give them. `seconds`: how long one host may
    take, where the address does not say. `migrating`: as who migrates, and never through a pooler, as the lock of the
    migrations belongs to a session. `options` are asyncpg's.
    """

    def __init__(
        self, settings: Settings, session: Mapping[str, str], *, seconds: float, migrating: bool = False, **options: Any
    ) -> None:
        self._address, self.source = _address(settings, migrating=migrating)
        own = {name: value for name, value in session.items() if name not in self._address.in_options}
        self._session = {**own, **self._address.session}
        self._options = {"timeout": self._address.seconds or seconds, **self._address.arguments, **options}
        self._limits = {name: session[name] for name in TIMEOUTS if name in session}
        self._direct = migrating
        self.pooled = False
        self.unlimited = ""  # what to run, where a pooler drops the timeouts and the role has none

    @property
    def address(self) -> PostgresAddress:
        """Where it connects to."""
        return self._address

    def elsewhere(self, **arguments: str) -> Connector:
        """Return one to the same server, with other `arguments` (database, user, password)."""
        other = copy.copy(self)
        other._address = replace(self._address, arguments={**self._address.arguments, **arguments})  # noqa: SLF001
        other._options = {**self._options, **arguments}  # noqa: SLF001
        return other

    async def connect(self) -> asyncpg.Connection[Any]:
        """Return a connection to the first host that gives one. Raise what asyncpg raises, or `PooledConnection`."""
        try:
            connection = await self._connect()
        except asyncpg.ProtocolViolationError as error:
            if "startup parameter" not in str(error):
                raise
            if self._direct:
                raise PooledConnection(MIGRATE_DIRECTLY) from error
            if not self._session.keys() & {*TIMEOUTS}:
                raise
            # From now on without: behind a pooler, the role has the timeouts.
            self._session = {name: value for name, value in self._session.items() if name not in TIMEOUTS}
            connection = await self._connect()
        try:
            await self._look(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _connect(self) -> asyncpg.Connection[Any]:
        # Host by host: asyncpg's own limit is one for all of them, and a host that is gone would use it up.
        failed: BaseException | None = None
        for host in self._address.hosts:
            try:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(
                    **self._options, **host, server_settings=self._session
                )
            except NEXT_HOST as error:
                failed = error
            else:
                return connection
        assert failed is not None
        raise failed

    async def _look(self, connection: asyncpg.Connection[Any]) -> None:
        """Find out who answers. Raise `PooledConnection` where it is a pooler that will not do."""
        # A pooler makes up the number that it gives its client at the start. Asked without a prepared statement, which
        # would stay behind in somebody's session.
        seconds = self._options["timeout"]
        try:
            own = f"SELECT 1 / (pg_backend_pid() = {connection.get_server_pid()})::int"
            await connection.execute(own, timeout=seconds)
        except asyncpg.DivisionByZeroError:
            if self._direct:
                raise PooledConnection(MIGRATE_DIRECTLY) from None
            if not self.pooled:
                await self._judge(connection, seconds)
            self.pooled = True

    async def _judge(self, connection: asyncpg.Connection[Any], seconds: float) -> None:
        """Raise `PooledConnection` where the pooler does not keep prepared statements apart."""
        try:
            async with connection.transaction():
                names = [row["name"] for row in await connection.fetch(STATEMENTS, timeout=seconds)]
                limits = await connection.fetchrow(LIMITS, timeout=seconds)
        except (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError):
            names, limits = [OWN_STATEMENT], None
        # One that does gives each statement a name of its own.
        if all(name.startswith(OWN_STATEMENT) for name in names):
            raise PooledConnection(
                f"a connection pooler answers there that does not keep prepared statements apart ({NEEDED}): change it,"
                " or give the address of PostgreSQL itself"
            )
        lacking = {name: value for name, value in self._limits.items() if limits and limits[name] == "0"}
        self.unlimited = " ".join(f"ALTER ROLE CURRENT_USER SET {name} = '{value}';" for name, value in lacking.items())


async def connect_once(connector: Connector) -> asyncpg.Connection[Any]:
    """Return a connection of `connector`.

    Raise `SettingsError` where its settings will never give one, and what asyncpg raises where there is none now.
    """
    try:
        return await connector.connect()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if reason := refusal(error):
            raise SettingsError([f"{connector.source}: {reason}"]) from error
        raise


def refusal(error: BaseException | None) -> str | None:
    """Return why waiting will not help against the `error` of a connection; None where it may."""
    said = " ".join(str(error).split())
    match error:
        case PooledConnection() | asyncpg.ClientConfigurationError():
            return said
        case asyncpg.ProtocolViolationError() if "startup parameter" in said:
            return (
                f"a connection pooler answers there (it says `{said}`): let the parameter through in its"
                " ignore_startup_parameters, take it out of the address, or give the address of PostgreSQL itself"
            )
        case asyncpg.UndefinedObjectError() | asyncpg.InvalidParameterValueError():
            return f"PostgreSQL refuses a parameter of the address (it says `{said}`): take it out"
        case ssl.SSLCertVerificationError():
            return (
                f"the server's certificate is not accepted ({error.verify_message}): name its authority in"
                " sslrootcert, and the host as the certificate does"
            )
    return None


def _address(settings: Settings, *, migrating: bool) -> tuple[PostgresAddress, str]:
    """Return where the database is, and which setting says so."""
    if migrating and settings.migration_database_url is not None:
        return postgres_address(settings.migration_database_url.get_secret_value()), "MIGRATION_DATABASE_URL"
    if settings.database_url is not None:
        return postgres_address(settings.database_url.get_secret_value()), "DATABASE_URL"
    user, password = settings.postgres_user, settings.postgres_password
    if migrating and settings.postgres_owner is not None:
        user, password = settings.postgres_owner, settings.postgres_owner_password
    arguments = {
        "user": user,
        "database": settings.postgres_db,
        "password": password.get_secret_value() if password else None,
    }
    host = {"host": settings.postgres_host, "port": settings.postgres_port}
    return PostgresAddress(arguments, [host]), "POSTGRES_HOST"
