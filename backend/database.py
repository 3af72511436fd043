"""PostgreSQL: a pool in which every wait is bounded, and a clear 503 when no connection is available."""

from __future__ import annotations

import asyncio
import contextlib
from traceback import walk_tb
from types import TracebackType
from typing import Any, TypeAlias

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from backend.metrics import Metrics
from backend.postgres import connect_arguments, connect_directly, must_be_direct, refusal
from backend.problems import Problem
from backend.settings import Settings

__all__ = ["Connection", "Database", "DatabaseReadOnly", "DatabaseUnavailable", "check_address"]

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

CONNECT_SECONDS = 2.0
COMMAND_SECONDS = 5.0
RELEASE_SECONDS = 1.0
READ_ONLY_SECONDS = 1.0
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
# While connecting, whatever is wrong: refused, reset, no such socket, timed out, no such role, the pool is closing, or
# cut between two messages (InternalClientError: "another operation is in progress").
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


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


async def check_address(settings: Settings) -> None:
    """Raise `SettingsError` where no connection to the database of `settings` will ever be possible.

    A database that is away is fine: the service starts without it.
    """
    try:
        connection = await connect_directly(settings, seconds=CONNECT_SECONDS, server_settings=_session(settings))
    except LOST:
        return
    connection.terminate()


def _session(settings: Settings) -> dict[str, str]:
    return {
        "application_name": f"{settings.project_name}-backend",
        "statement_timeout": f"{COMMAND_SECONDS:.0f}s",
        "lock_timeout": "2s",
        "idle_in_transaction_session_timeout": "10s",
    }


async def _keep_session(_: Any) -> None:
    """Skip the reset round trip on release; asyncpg still rolls back."""
    # So a lease must not leave a SET, a LISTEN or a session lock behind.


class Database:
    """The connection pool of one process. `lease()` lends one connection to one request."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._limit = settings.database_pool_size + settings.database_max_overflow
        self._wait = settings.database_pool_timeout
        # Without its reset round trip the pool alone is unfair: p99 is 164 ms, against 12 ms with a queue in front.
        self._turns = asyncio.Semaphore(self._limit)
        self._metrics = metrics
        self._log = structlog.get_logger("database")
        self._down = False
        self._releasing: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None  # until a read-only database is writable again
        metrics.connections_limit.set(self._limit)
        self._pool: asyncpg.Pool[asyncpg.Record] = asyncpg.create_pool(
            **connect_arguments(settings),
            init_size=0,  # a database that is down must not prevent the start
            min_size=0,
            max_size=self._limit,
            init=self._begin,
            reset=_keep_session,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            server_settings=_session(settings),
        )

    async def open(self) -> None:
        """Open the pool, and a first connection if the database is up."""
        await self._pool
        try:
            async with self.lease() as connection:
                await connection.fetchval("SELECT 1", timeout=CONNECT_SECONDS)
        except DatabaseUnavailable:
            self._log.warning("started without the database; requests answer 503 until it is up")

    async def close(self) -> None:
        """Close every connection: gracefully for at most RELEASE_SECONDS, then by force."""
        if self._watching:
            self._watching.cancel()
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def lease(self) -> Lease:
        """Return a context manager that lends one connection: `async with database.lease() as connection`.

        It waits for its turn, at most DATABASE_POOL_TIMEOUT seconds. Raise `DatabaseUnavailable` when there is no
        connection, and when one breaks or times out in the block. What else fails there (a file, a request, a timeout
        of the block's own) is raised as it is.
        """
        return Lease(self)

    async def take(self) -> Connection:
        """Take a connection, in turn, for `Lease`, which gives it back. Raise one of `LOST`."""
        if self._turns.locked():
            try:
                async with asyncio.timeout(self._wait):
                    await self._turns.acquire()
            except TimeoutError:
                self._metrics.pool_timeouts.inc()
                raise
        else:
            await self._turns.acquire()
        try:
            connection = await self._pool.acquire()
        except BaseException:
            self._turns.release()
            raise
        self._metrics.connections_used.inc()
        if self._down:
            self._down = False
            self._log.info("database available again")
        return connection

    def give_back(self, connection: Connection) -> None:
        """Start returning `connection` to the pool."""
        # In the background: the answer must not wait for this, or for a hung PostgreSQL.
        task = asyncio.create_task(self._release(connection))
        self._releasing.add(task)  # the loop's own reference is weak

    async def _release(self, connection: Connection) -> None:
        try:
            await self._pool.release(connection, timeout=RELEASE_SECONDS)
        except Exception as error:  # noqa: BLE001 - in any case the pool has dropped the connection
            self._log.warning("connection dropped on release", reason=type(error).__name__)
        finally:
            # Not in a callback of the task: that would cost each request another turn of the loop.
            if task := asyncio.current_task():
                self._releasing.discard(task)
            self._metrics.connections_used.dec()
            self._turns.release()

    def lost(self, error: BaseException) -> DatabaseUnavailable:
        """Return what to raise for `error`, which is one of `LOST`."""
        if not self._down:  # log it once, not for each request and poll
            self._down = True
            self._log.warning("database unavailable", reason=str(error) or type(error).__name__)
        reason = refusal(error)
        return DatabaseUnavailable(f"The database is unavailable: {reason}") if reason else DatabaseUnavailable()

    def read_only(self, connection: Connection) -> DatabaseReadOnly:
        """Drop the `connection`, whose session takes no writes, and return what to raise."""
        connection.terminate()
        if self._watching is None or self._watching.done():
            self._log.warning("database is read-only; writes answer 503 until it is not")
            self._watching = asyncio.create_task(self._watch_read_only())
        return DatabaseReadOnly()

    async def _watch_read_only(self) -> None:
        """Renew all sessions once a second until the database takes writes again."""
        # A session remains what it was when it began, and its connection may lead to what is a standby now.
        while True:
            await self._pool.expire_connections()
            await asyncio.sleep(READ_ONLY_SECONDS)
            await self._pool.expire_connections()
            with contextlib.suppress(DatabaseUnavailable):
                async with self.lease() as connection:
                    if await connection.fetchval(IS_READ_ONLY) == "off":
                        break
        self._log.info("database takes writes again")

    async def _begin(self, connection: Any) -> None:
        await must_be_direct(connection)
        self._metrics.connections.inc()
        connection.add_termination_listener(lambda _: self._metrics.connections.dec())


def _is_asyncpg(error: OSError) -> bool:
    """Return whether `error` came out of asyncpg, as the TimeoutError of a command does."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__", "").startswith("asyncpg.") for frame in frames)


def _takes_no_writes(connection: Connection) -> bool:
    """Return whether the session of `connection` is read-only, and not only the transaction that a caller began."""
    # PostgreSQL reports both at each change; before version 14, neither.
    reported = connection.get_settings()
    known = [getattr(reported, name, None) for name in ("default_transaction_read_only", "in_hot_standby")]
    return "on" in known or known == [None, None]


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
        assert self._connection is not None
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError) and _takes_no_writes(self._connection):
            refused = self._database.read_only(self._connection)
            self._database.give_back(self._connection)
            raise refused from error
        lost = (
            isinstance(error, BROKEN)
            or (isinstance(error, OSError) and _is_asyncpg(error))
            or (isinstance(error, asyncpg.InterfaceError) and self._connection.is_closed())
        )
        if isinstance(error, asyncpg.InternalClientError):
            # PostgreSQL has ended the idle connection, and asyncpg has read that but not yet noticed the close ("cannot
            # switch to state 12"). Nothing was sent, and nothing can be sent on it any more.
            self._connection.terminate()
            lost = True
        self._database.give_back(self._connection)
        if error is not None and lost:
            raise self._database.lost(error) from error
