"""How many connections are open: as PostgreSQL counts them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from backend import pool
from backend.database import Database, DatabaseUnavailable
from backend.pool import NoTurn, Pool
from backend.settings import load_settings
from tests.backend.servers import PASSWORD, Postgres, database_of, postgres
from tests.project import NAME

SIZE, OVERFLOW = 3, 2
OURS = f"FROM pg_stat_activity WHERE application_name = '{NAME}-backend'"


@pytest.fixture(scope="module", name="own")
def _own() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ten seconds here."""
    monkeypatch.setattr(pool, "TIDY_SECONDS", 0.05)
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.5)


@asynccontextmanager
async def opened(own: Postgres, folder: Path) -> AsyncIterator[Database]:
    """A database of the service that keeps SIZE connections open, and at most OVERFLOW more."""
    limits = {"DATABASE_POOL_SIZE": str(SIZE), "DATABASE_MAX_OVERFLOW": str(OVERFLOW), "DATABASE_POOL_TIMEOUT": "5"}
    settings = load_settings({**own.environ, **limits}, secrets_dir=folder)
    async with database_of(settings) as database:
        yield database


async def pids(own: Postgres, where: str = "") -> set[int]:
    """The sessions that PostgreSQL has of us."""
    connection = await asyncpg.connect(host=str(own.folder), user="postgres", database="postgres", password=PASSWORD)
    try:
        return {row["pid"] for row in await connection.fetch(f"SELECT pid {OURS} {where}")}
    finally:
        await connection.close()


async def until(own: Postgres, number: int, where: str = "") -> set[int]:
    """The sessions, once there are NUMBER of them."""
    async with asyncio.timeout(20):
        while len(found := await pids(own, where)) != number:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.05)
    return found


async def test_so_many_are_open_before_anybody_asks(own: Postgres, tmp_path: Path) -> None:
    """DATABASE_POOL_SIZE connections are there soon after the start, and none after the end."""
    async with opened(own, tmp_path):
        kept = await until(own, SIZE)
        await asyncio.sleep(1)
        assert await pids(own) == kept
    await until(own, 0)


async def test_more_are_opened_while_they_are_needed_and_closed_after(own: Postgres, tmp_path: Path) -> None:
    """DATABASE_MAX_OVERFLOW more, and not one beyond; then DATABASE_POOL_SIZE again."""
    async with opened(own, tmp_path) as database:
        await until(own, SIZE)
        async with AsyncExitStack() as held:
            for _ in range(SIZE + OVERFLOW):
                await held.enter_async_context(database.lease())
            assert len(await pids(own)) == SIZE + OVERFLOW
            waiting = asyncio.create_task(_pid(database))
            await asyncio.sleep(0.3)
            assert (waiting.done(), len(await pids(own))) == (False, SIZE + OVERFLOW)
        await waiting
        await until(own, SIZE)


async def test_they_are_back_after_an_outage_before_anybody_asks(own: Postgres, tmp_path: Path) -> None:
    """A database that is down does not stop the start; when it comes, and comes back, so do the connections."""
    own.stop()
    async with opened(own, tmp_path) as database:
        with pytest.raises(DatabaseUnavailable):
            await _pid(database)
        await asyncio.to_thread(own.start)
        first = await until(own, SIZE)
        await asyncio.to_thread(own.kill)
        await asyncio.to_thread(own.start)
        assert not await until(own, SIZE) & first


async def test_each_is_replaced_when_it_is_old(own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is always in use, as nobody waits for a moment without requests."""
    monkeypatch.setattr(pool, "LIFETIME_SECONDS", 0.5)
    async with opened(own, tmp_path) as database:
        first = await until(own, SIZE)
        async with asyncio.timeout(20):
            seen = set[int]()
            while len(seen) < 3 or await pids(own) & first:
                seen.add(await _pid(database))


async def test_a_statement_that_nobody_waits_for_is_ended(own: Postgres, tmp_path: Path) -> None:
    """A request that is given up takes its statement with it, and its connection serves nobody else."""
    async with opened(own, tmp_path) as database:

        async def ask() -> None:
            async with database.lease() as connection:
                await connection.fetch("SELECT pg_sleep(4)")

        request = asyncio.create_task(ask())
        busy = "AND query LIKE '%pg_sleep(4)' AND state = 'active'"
        (pid,) = await until(own, 1, busy)
        request.cancel()
        await until(own, 0, f"AND pid = {pid}")


async def test_a_transaction_that_was_left_open_ends_with_its_lease(own: Postgres, tmp_path: Path) -> None:
    """Nothing of it is seen by the next lease."""
    async with opened(own, tmp_path) as database:
        async with database.lease() as connection:
            await connection.execute("BEGIN")
            left = connection.get_server_pid()
        for _ in range(2 * (SIZE + OVERFLOW)):
            assert await _pid(database) != left
        assert not await pids(own, "AND state LIKE 'idle in transaction%'")


async def _pid(database: Database) -> int:
    async with database.lease() as connection:
        return int(await connection.fetchval("SELECT pg_backend_pid()"))


@asynccontextmanager
async def pool_with(own: Postgres, opens: Callable[[int], Awaitable[object]], *, size: int = 1) -> AsyncIterator[Pool]:
    """A pool that has SIZE connections, before the opening of each further one waits for `opens(number)`."""
    numbers = itertools.count()

    async def connect() -> asyncpg.Connection[Any]:
        if (number := next(numbers)) >= size:
            await opens(number)
        return await asyncpg.connect(host=str(own.folder), user="postgres", database="postgres", password=PASSWORD)

    one = Pool(connect, size=size, overflow=OVERFLOW)
    for lent in [await one.take(1) for _ in range(size)]:
        one.give_back(lent)
    try:
        yield one
    finally:
        await one.close()


class TestWhoeverNeedsAnotherOne:
    async def test_takes_one_that_comes_back_meanwhile(self, own: Postgres) -> None:
        """To open one takes for ever on a server that is busy; the one that was opened serves the next."""
        opened = asyncio.Event()
        async with pool_with(own, lambda _: opened.wait()) as one:
            first = await one.take(1)
            waits = asyncio.create_task(one.take(1))
            await asyncio.sleep(0.05)
            one.give_back(first)
            assert await asyncio.wait_for(waits, 1) is first
            opened.set()
            second = await asyncio.wait_for(one.take(1), 5)
            assert second is not first

    async def test_is_told_why_none_can_be_opened(self, own: Postgres) -> None:
        """At once: while all are lent, nothing may come back for long. The turn is free again."""

        async def refuse(_: int) -> None:
            raise ConnectionRefusedError("no more")

        async with pool_with(own, refuse) as one:
            first = await one.take(1)
            for _ in range(1 + OVERFLOW):
                with pytest.raises(ConnectionRefusedError):
                    await one.take(1)
            one.give_back(first)
            assert await one.take(1) is first
            one.give_back(first)

    async def test_waits_on_where_the_server_is_slow_to_let_somebody_in(self, own: Postgres) -> None:
        """For one that comes back, or a later try; at most for its time."""
        tries: list[int] = []

        async def slow(number: int) -> None:
            tries.append(number)
            await asyncio.sleep(0.05)
            raise TimeoutError

        async with pool_with(own, slow) as one:
            first = await one.take(1)
            waits = asyncio.create_task(one.take(5))
            await asyncio.sleep(0.3)
            assert len(tries) > 1
            one.give_back(first)
            assert await asyncio.wait_for(waits, 1) is first
            with pytest.raises(NoTurn):
                await one.take(0.2)
            await asyncio.sleep(0.1)
            before = len(tries)
            await asyncio.sleep(0.2)
            assert len(tries) == before  # nobody waits any more
            one.give_back(first, broken=True)
            await asyncio.sleep(0.2)
            with pytest.raises(TimeoutError) as caught:
                await one.take(1)
            assert not isinstance(caught.value, NoTurn)  # with none open, at once

    async def test_leaves_a_connection_that_came_too_late_to_others(self, own: Postgres) -> None:
        """A request that is given up loses none, and its turn is free."""
        opened = asyncio.Event()
        async with pool_with(own, lambda _: opened.wait()) as one:
            first = await one.take(1)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(one.take(1), 0.05)
            opened.set()
            others = [await one.take(5) for _ in range(OVERFLOW)]
            assert len({first, *others}) == 1 + OVERFLOW
            with pytest.raises(NoTurn):
                await one.take(0.05)
            for lent in (first, *others):
                one.give_back(lent)

    async def test_never_makes_more_than_there_may_be(self, own: Postgres) -> None:
        """However the opened ones and those that come back meet."""
        begun: list[int] = []

        async def slowly(number: int) -> None:
            begun.append(number)
            await asyncio.sleep(0.02 * (number % 3))

        async with pool_with(own, slowly) as one:
            most = lost = 0

            async def use(number: int) -> None:
                nonlocal most, lost
                for turn in range(6):
                    lent = await one.take(10)
                    most = max(most, 1 + len(begun) - lost)
                    await lent.fetchval("SELECT pg_sleep($1)", 0.003 * ((number + turn) % 4))
                    broken = (number + turn) % 5 == 0
                    if broken:
                        await lent.close()
                        lost += 1
                    one.give_back(lent, broken=broken)

            await asyncio.gather(*map(use, range(12)))
        assert len(begun) > OVERFLOW
        assert most == 1 + OVERFLOW

    async def test_is_told_that_the_pool_is_closed(self, own: Postgres) -> None:
        """Nobody waits for ever for a connection that never opens."""
        async with pool_with(own, lambda _: asyncio.Event().wait()) as one:
            await one.take(1)
            waits = asyncio.create_task(one.take(5))
            await asyncio.sleep(0.05)
        with pytest.raises(asyncpg.InterfaceError, match="the pool is closed"):
            await asyncio.wait_for(waits, 1)
