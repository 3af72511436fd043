"""The open connections of one process: so many are kept, and a few more are there while they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import asyncpg

__all__ = ["LOST", "Connection", "NoTurn", "Pool"]

# One lease's; whoever keeps it for longer shares it with strangers.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# After this time a connection leads to whichever server its name means by now.
LIFETIME_SECONDS = 1800.0
JITTER = 0.2  # the share of it by which some end sooner, so that they do not all end together
IDLE_SECONDS = 10.0  # of one more than are kept
TIDY_SECONDS = 1.0
CLOSE_SECONDS = 1.0
CLOSED = "the pool is closed"
# While connecting, whatever is wrong: refused, reset, no such socket, timed out, no such role, the pool is closing, or
# cut between two messages (InternalClientError: "another operation is in progress").
LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class NoTurn(TimeoutError):
    """All connections are lent."""


class Pool:
    """At most `size + overflow` connections, each made by `connect`.

    asyncpg's own pool cannot start without its server, reaches its size again up to a minute after an outage, and costs
    a request one more task: it resets each connection that comes back.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, overflow: int) -> None:
        self._connect = connect
        self._size, self._limit = size, size + overflow
        self._turns = asyncio.Semaphore(self._limit)  # fair: who waits longest is next
        self._idle: deque[tuple[float, Connection]] = deque()  # with the time it came back; the last is lent first
        self._due: dict[Connection, float] = {}  # when each open connection is closed for its age, lent ones too
        self._waiting: deque[asyncio.Future[Connection]] = deque()  # who has a turn and no connection yet
        self._opening = 0
        self._closed = False
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # the loop's own references are weak

    def keep(self) -> None:
        """Begin to keep `size` connections open, after each outage, too, and to close what is too old or too many."""
        self._keeper = asyncio.create_task(self._keep())

    async def take(self, seconds: float) -> Connection:
        """Lend a connection, in turn. Raise `NoTurn` after `seconds` of waiting for one, or another one of `LOST`."""
        deadline = asyncio.get_running_loop().time() + seconds
        if self._turns.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._turns.acquire()
            except TimeoutError:
                raise NoTurn from None
        else:
            await self._turns.acquire()
        try:
            return self._newest() or await self._next(deadline)
        except BaseException:
            self._turns.release()
            raise

    def give_back(self, connection: Connection, *, broken: bool = False) -> None:
        """Take `connection` back, and close it if it is `broken`, old, or in the middle of something."""
        # Nothing is reset: a lease must not leave a SET, a LISTEN or a session lock behind.
        now = asyncio.get_running_loop().time()
        if broken or connection.is_closed() or connection.is_in_transaction() or now >= self._due[connection]:
            # In the background: the answer must not wait for a hung PostgreSQL.
            self._begin(self._end(connection, lent=True))
        else:
            self._offer(connection)
            self._turns.release()

    def expire(self) -> None:
        """Let no connection that is open now be lent again."""
        self._due = dict.fromkeys(self._due, 0.0)

    async def close(self) -> None:
        """Close every connection: gracefully for at most CLOSE_SECONDS, then by force."""
        self._closed = True
        if self._keeper:
            self._keeper.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for _ in range(self._limit):  # each one that is lent comes back before its turn does
                    await self._turns.acquire()
                await asyncio.gather(*(self._end(connection) for connection in [*self._due]))
        for connection in [*self._due]:
            connection.terminate()
        for task in [*self._tasks]:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _newest(self) -> Connection | None:
        # The newest, so that in calm times the others get old and leave.
        while self._idle:
            _, connection = self._idle.pop()
            if not connection.is_closed() and asyncio.get_running_loop().time() < self._due[connection]:
                return connection
            del self._due[connection]
            connection.terminate()
        return None

    async def _next(self, deadline: float) -> Connection:
        """Return the first connection that there is: a new one, or one that comes back meanwhile."""
        # To open one takes seconds on a busy server, and longest when all the others are about to come back.
        coming: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.append(coming)
        if len(self._due) + self._opening < self._limit:  # else there is one on its way for each who waits
            self._opening += 1
            self._begin(self._open_one())
        try:
            await asyncio.wait([coming], timeout=deadline - asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            if not coming.cancel() and not coming.exception():
                self._offer(coming.result())
            raise
        if coming.cancel():
            raise NoTurn
        return coming.result()

    async def _open_one(self) -> None:
        """Open a connection for whoever waits longest; they get the error, too."""
        try:
            self._offer(await self._open())
        except TimeoutError as error:
            # A server that is only slow to let somebody in: one of those that are lent may come back sooner.
            if not self._due:
                self._refuse(error)
            elif any(not coming.done() for coming in self._waiting):
                self._opening += 1
                self._begin(self._open_one())
        except LOST as error:
            self._refuse(error)
        except BaseException:
            self._refuse(asyncpg.InterfaceError(CLOSED))
            raise

    def _offer(self, connection: Connection) -> None:
        """Hand `connection` to whoever waits longest, or keep it."""
        if coming := self._first():
            coming.set_result(connection)
        else:
            self._idle.append((asyncio.get_running_loop().time(), connection))

    def _refuse(self, error: BaseException) -> None:
        """Raise `error` where somebody waits longest; nobody may."""
        if coming := self._first():
            coming.set_exception(error)

    def _first(self) -> asyncio.Future[Connection] | None:
        """Return who waits longest, and has not given up."""
        while self._waiting:
            coming = self._waiting.popleft()
            if not coming.done():
                return coming
        return None

    async def _open(self) -> Connection:
        """Return a new connection. Whoever asks has counted it as `_opening`, and has a turn, so the limit holds."""
        try:
            connection = await self._connect()
        finally:
            self._opening -= 1
        if self._closed:
            connection.terminate()
            raise asyncpg.InterfaceError(CLOSED)
        lifetime = LIFETIME_SECONDS * (1 - JITTER * random.random())  # noqa: S311 - no secret
        self._due[connection] = asyncio.get_running_loop().time() + lifetime
        return connection

    async def _end(self, connection: Connection, *, lent: bool = False) -> None:
        self._due.pop(connection, None)
        try:
            # A statement that somebody gave up is cancelled first, so it does not go on without its client.
            await connection.close(timeout=CLOSE_SECONDS)
        except LOST:
            connection.terminate()
        finally:
            if lent:
                self._turns.release()

    async def _keep(self) -> None:
        while not self._closed:
            with contextlib.suppress(*LOST):
                await self._tidy()
            await asyncio.sleep(TIDY_SECONDS)

    async def _tidy(self) -> None:
        now = asyncio.get_running_loop().time()
        gone: list[Connection] = []
        kept: deque[tuple[float, Connection]] = deque()
        for since, connection in self._idle:
            unneeded = len(self._due) - len(gone) > self._size and now - since >= IDLE_SECONDS
            if unneeded or connection.is_closed() or now >= self._due[connection]:
                gone.append(connection)
            else:
                kept.append((since, connection))
        self._idle = kept
        await asyncio.gather(*(self._end(connection) for connection in gone))
        while len(self._due) + self._opening < self._size and not self._turns.locked():
            async with self._turns:
                self._opening += 1
                self._offer(await self._open())
