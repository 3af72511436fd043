"""What counts as a database that is away: what comes from its connection, and nothing else of a lease's block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from backend.database import Connection, Database, DatabaseUnavailable
from backend.metrics import Metrics
from backend.settings import Settings, load_settings

LONG = "SELECT pg_sleep(30)"

Block = Callable[[Connection], Awaitable[object]]


@pytest.fixture(name="database")
async def _database(settings: Settings) -> AsyncIterator[Database]:
    database = Database(settings, Metrics(settings.release))
    await database.open()
    yield database
    await database.close()


async def _reads_a_file(_: Connection) -> None:
    Path("/nowhere").read_bytes()  # noqa: ASYNC240 - the point of it


async def _writes_to_a_closed_pipe(_: Connection) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with closing(os.fdopen(writer, "wb", buffering=0)) as file:
        file.write(b"x")


async def _asks_somebody_slow(_: Connection) -> None:
    raise TimeoutError("the carrier is slow")


async def _gives_up_by_itself(connection: Connection) -> None:
    async with asyncio.timeout(0.05):
        await connection.fetch(LONG)


async def _fails_in_a_transaction(connection: Connection) -> None:
    async with connection.transaction():
        raise ConnectionResetError("of the carrier")


async def _waits_too_long(connection: Connection) -> None:
    await connection.fetch(LONG, timeout=0.05)


async def _is_cancelled(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '50ms'")
        await connection.fetch(LONG)


async def _loses_its_session(connection: Connection) -> None:
    await connection.fetch("SELECT pg_terminate_backend(pg_backend_pid())")


class TestLease:
    @pytest.mark.parametrize(
        ("block", "error"),
        [
            (_reads_a_file, FileNotFoundError),
            (_writes_to_a_closed_pipe, BrokenPipeError),
            (_asks_somebody_slow, TimeoutError),
            (_gives_up_by_itself, TimeoutError),
            (_fails_in_a_transaction, ConnectionResetError),
        ],
    )
    async def test_an_error_of_the_block_is_raised_as_it_is(
        self, database: Database, block: Block, error: type[OSError]
    ) -> None:
        """A file, a pipe or somebody else's server that fails is no database that is away."""
        with pytest.raises(error):
            async with database.lease() as connection:
                await block(connection)
        async with database.lease() as connection:
            assert await connection.fetchval("SELECT 1") == 1

    @pytest.mark.parametrize("block", [_waits_too_long, _is_cancelled, _loses_its_session])
    async def test_a_connection_that_breaks_or_times_out_is_a_database_that_is_away(
        self, database: Database, block: Block
    ) -> None:
        """Callers get a 503, and the next lease has a connection that works."""
        with pytest.raises(DatabaseUnavailable):
            async with database.lease() as connection:
                await block(connection)
        async with database.lease() as connection:
            assert await connection.fetchval("SELECT 1") == 1

    @pytest.mark.parametrize("wrong", [{"POSTGRES_USER": "nobody-of-that-name"}, {"POSTGRES_DB": "nothing"}])
    async def test_whatever_is_wrong_with_a_connection_is_a_database_that_is_away(
        self, environ: dict[str, str], tmp_path: Path, wrong: dict[str, str]
    ) -> None:
        """A role that is not there (yet) is no traceback at the start, and no 500."""
        await _is_away({**environ, **wrong}, tmp_path)

    async def test_nobody_there_is_a_database_that_is_away(self, tmp_path: Path) -> None:
        """The socket does not exist."""
        await _is_away({"POSTGRES_HOST": str(tmp_path)}, tmp_path)


async def _is_away(environ: dict[str, str], secrets: Path) -> None:
    """There is no connection to the database of `environ`, and a lease says so as a problem."""
    settings = load_settings(environ, secrets_dir=secrets)
    database = Database(settings, Metrics(settings.release))
    await database.open()
    try:
        with pytest.raises(DatabaseUnavailable):
            async with database.lease():
                pytest.fail("there is no connection")
    finally:
        await database.close()
