"""How many connections are open: as PostgreSQL counts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from backend import pool
from backend.database import Database, DatabaseUnavailable
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
