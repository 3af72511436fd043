"""PostgreSQL: a pool in which every wait is bounded, and a clear 503 when no connection is available."""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter
from traceback import walk_tb
from types import TracebackType
from typing import Any

import asyncpg
import structlog

from backend.metrics import Metrics
from backend.pool import LOST, Connection, NoTurn, Pool
from backend.postgres import Connector, connect_once, refusal
from backend.problems import Problem
from backend.settings import Settings
from backend.tracing import Tracing

__all__ = ["Connection", "Database", "DatabaseReadOnly", "DatabaseUnavailable", "SchemaChanged", "check_address"]

CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 5.0
READ_ONLY_SECONDS = 1.0
AT_ONCE_SECONDS = 0.001  # what is lent sooner was not waited for, and need not be counted
IS_READ_ONLY = "SHOW transaction_read_only"  # on a standby, too
BROKEN = (
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,  # starting up, in recovery, shutting down
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,  # statement_timeout
    asyncpg.LockNotAvailableError,  # lock_timeout
    asyncpg.InvalidPasswordError,  # being rotated
    asyncpg.InvalidCatalogNameError,  # being restored
    asyncpg.UndefinedTableError,  # not migrated yet
)


class DatabaseUnavailable(Problem):
    """The database is unavailable; try again after `Retry-After` seconds."""

    status = 503
    kind = "urn:problem-type:database-unavailable"

    def __init__(self, detail: str = "The database is unavailable.") -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class DatabaseReadOnly(DatabaseUnavailable):
    """The database takes no writes now; try again after `Retry-After` seconds."""

    kind = "urn:problem-type:database-read-only"

    def __init__(self) -> None:
        super().__init__("The database takes no writes now: it is read-only, as after a failover.")


class SchemaChanged(Exception):
    """A migration has changed what a query returns, in the middle of a transaction, which is undone.

    Outside of a transaction, asyncpg prepares the query again by itself.
    """


async def check_address(settings: Settings) -> None:
    """Raise `SettingsError` where no connection to the database of `settings` will ever be possible.

    A database that is away is fine: the service starts without it.
    """
    try:
        connection = await connect_once(_connector(settings))
    except LOST:
        return
    connection.terminate()


def _connector(settings: Settings, **options: Any) -> Connector:
    session = {
        "application_name": f"{settings.project_name}-backend",
        "statement_timeout": f"{COMMAND_SECONDS:.0f}s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "10s",
    }
    return Connector(settings, session, seconds=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, **options)


class Database:
    """The connection pool of one process. `lease()` lends one connection to one request."""

    def __init__(self, settings: Settings, metrics: Metrics, tracing: Tracing | None = None) -> None:
        size, overflow = settings.database_pool_size, settings.database_max_overflow
        self._wait = settings.database_pool_timeout
        self._tracing = tracing
        self._connector = _connector(settings, **({"connection_class": tracing.connection_class()} if tracing else {}))
        self._pool = Pool(self._connect, size=size, overflow=overflow)
        self._metrics = metrics
        self._log = structlog.get_logger("database")
        self._down = False
        self._watching: asyncio.Task[None] | None = None  # until a read-only database is writable again
        metrics.connections_limit.set(size + overflow)

    async def open(self) -> None:
        """Open a first connection if the database is up, and the others beside the first requests."""
        try:
            async with self.lease() as connection:
                await connection.fetchval("SELECT 1", timeout=CONNECT_SECONDS)
        except DatabaseUnavailable:
            self._log.warning("started without the database; requests answer 503 until it is up")
        self._pool.keep()

    async def close(self) -> None:
        """Close every connection, within about a second."""
        if self._watching:
            self._watching.cancel()
        await self._pool.close()

    def lease(self) -> Lease:
        """Return a context manager that lends one connection: `async with database.lease() as connection`.

        It waits for its turn, at most DATABASE_POOL_TIMEOUT seconds. Raise `DatabaseUnavailable` when there is no
        connection, and when one breaks or times out in the block. What else fails there (a file, a request, a timeout
        of the block's own) is raised as it is.
        """
        return Lease(self)

    async def take(self) -> Connection:
        """Take a connection, in turn, for `Lease`, which gives it back. Raise one of `LOST`."""
        if self._tracing is None:
            return await self._take()
        with self._tracing.span("wait for a connection"):
            return await self._take()

    async def _take(self) -> Connection:
        started = perf_counter()
        try:
            connection = await self._pool.take(self._wait)
        except NoTurn:
            self._metrics.pool_timeouts.inc()
            raise
        finally:
            waited = perf_counter() - started
            if waited > AT_ONCE_SECONDS:
                self._metrics.pool_waited.inc(waited)
        self._metrics.connections_used.inc()
        if self._down:
            self._down = False
            self._log.info("database available again")
        return connection

    def give_back(self, connection: Connection, *, broken: bool) -> None:
        """Return `connection` to the pool, which closes it if it is `broken`."""
        self._metrics.connections_used.dec()
        self._pool.give_back(connection, broken=broken)

    def lost(self, error: BaseException) -> DatabaseUnavailable:
        """Return what to raise for `error`, which is one of `LOST`."""
        if not self._down:  # log it once, not for each request and poll
            self._down = True
            self._log.warning("database unavailable", reason=str(error) or type(error).__name__)
        reason = refusal(error)
        return DatabaseUnavailable(f"The database is unavailable: {reason}") if reason else DatabaseUnavailable()

    def read_only(self) -> DatabaseReadOnly:
        """Watch until the database takes writes again, and return what to raise."""
        if self._watching is None or self._watching.done():
            self._log.warning("database is read-only; writes answer 503 until it is not")
            self._watching = asyncio.create_task(self._watch_read_only())
        return DatabaseReadOnly()

    def schema_changed(self) -> SchemaChanged:
        """Renew all connections, as each has statements of the older schema, and return what to raise."""
        self._pool.expire()
        return SchemaChanged()

    def takes_no_writes(self, connection: Connection) -> bool:
        """Return whether the session of `connection` is read-only, and not only the transaction that a caller began."""
        # PostgreSQL reports both at each change; before version 14, neither; a pooler, whatever it heard last.
        reported = connection.get_settings()
        known = [getattr(reported, name, None) for name in ("default_transaction_read_only", "in_hot_standby")]
        return "on" in known or known == [None, None] or self._connector.pooled

    async def _watch_read_only(self) -> None:
        """Ask in a new session each second whether the database takes writes again, and then renew all others."""
        # A session remains what it was when it began, and its connection may lead to what is a standby now.
        writable = False
        while not writable:
            await asyncio.sleep(READ_ONLY_SECONDS)
            with contextlib.suppress(*LOST):
                connection = await self._connector.connect()
                try:
                    writable = await connection.fetchval(IS_READ_ONLY) == "off"
                finally:
                    connection.terminate()
        self._pool.expire()
        self._log.info("database takes writes again")

    async def _connect(self) -> Connection:
        connection = await self._connector.connect()
        if self._connector.unlimited:
            self._log.warning("the pooler drops the timeouts of the sessions", fix=self._connector.unlimited)
            self._connector.unlimited = ""
        self._metrics.connections.inc()
        connection.add_termination_listener(lambda _: self._metrics.connections.dec())
        return connection


def _is_asyncpg(error: OSError) -> bool:
    """Return whether `error` came out of asyncpg, as the TimeoutError of a command does."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("asyncpg.") for frame in frames)


class Lease:
    """One connection for the length of a block."""

    # A class, because a generator-based context manager costs 2 µs more.
    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    async def __aenter__(self) -> Connection:
        try:
            self._connection = await self._database.take()
        except LOST as error:
            raise self._database.lost(error) from error
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        database, connection = self._database, self._connection
        assert connection is not None
        if error is None:
            database.give_back(connection, broken=False)
            return
        # InternalClientError: PostgreSQL has ended the idle connection, and asyncpg has read that but not yet noticed
        # the close ("cannot switch to state 12"). Nothing was sent, and nothing can be sent on it any more.
        lost = (
            isinstance(error, (*BROKEN, asyncpg.InternalClientError))
            or (isinstance(error, OSError) and _is_asyncpg(error))
            or (isinstance(error, asyncpg.InterfaceError) and connection.is_closed())
        )
        read_only = isinstance(error, asyncpg.ReadOnlySQLTransactionError) and database.takes_no_writes(connection)
        # Who gives up a statement (a cancelled task, a timeout) leaves a session that is still busy with it.
        unfit = isinstance(error, (TimeoutError, asyncio.CancelledError, asyncpg.InternalClientError))
        database.give_back(connection, broken=unfit or read_only)
        if read_only:
            raise database.read_only() from error
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            raise database.schema_changed() from error
        if lost:
            raise database.lost(error) from error
