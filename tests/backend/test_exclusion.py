"""A backup and a migration exclude each other in the database, and say by whom and since when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from backend.exclusion import (
    BackupEnded,
    BackupRuns,
    MigrationRuns,
    backing_up,
    backup_session_name,
    cancel_backups,
    keep_backups_out,
    running_backups,
)
from backend.migrations.connection import open_session
from backend.postgres import Connector
from backend.settings import Settings, load_settings
from tests.services import Services, psql


@pytest.fixture(name="settings")
def _settings(services: Services, worker_database: str) -> Settings:
    return load_settings(environ=services.environ(worker_database), sections=["database"])


@asynccontextmanager
async def migrating(settings: Settings) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A session as migrations have it."""
    connection = await open_session(settings)
    try:
        yield connection
    finally:
        await connection.close()


async def _until_ended(settings: Settings, began: asyncio.Event, ended: list[str]) -> None:
    async with backing_up(settings):
        began.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("tidied up")


class TestWhileABackupRuns:
    async def test_no_migration_begins_and_it_says_since_when(self, settings: Settings) -> None:
        async with backing_up(settings) as backup, migrating(settings) as migration:
            pid = backup.get_server_pid()
            with pytest.raises(
                BackupRuns, match=rf"a backup runs since 0 s \(pid {pid}, [\w-]+-backup\): wait, or depl"
            ):
                await keep_backups_out(migration)

    async def test_another_backup_does(self, settings: Settings) -> None:
        async with backing_up(settings), backing_up(settings), migrating(settings) as migration:
            assert len(await running_backups(migration)) == 2

    async def test_a_migration_of_another_database_begins(self, services: Services, settings: Settings) -> None:
        other = load_settings(environ=services.environ("postgres"), sections=["database"])
        async with backing_up(settings), migrating(other) as migration:
            await keep_backups_out(migration)

    async def test_no_timeout_of_the_role_ends_it(self, services: Services, settings: Settings) -> None:
        alter = f"ALTER DATABASE {settings.postgres_db}"
        psql(services, "postgres", f"{alter} SET idle_session_timeout = '100ms'")
        try:
            async with backing_up(settings) as backup:
                await asyncio.sleep(0.5)
                assert await backup.fetchval("SELECT 1") == 1
        finally:
            psql(services, "postgres", f"{alter} RESET idle_session_timeout")


class TestOnceItHasEnded:
    async def test_a_migration_begins(self, settings: Settings) -> None:
        async with backing_up(settings):
            pass  # it begins, and ends
        async with migrating(settings) as migration:
            await keep_backups_out(migration)
            assert await running_backups(migration) == []

    async def test_a_failure_of_the_backup_is_passed_on(self, settings: Settings) -> None:
        with pytest.raises(ZeroDivisionError):
            async with backing_up(settings):
                raise ZeroDivisionError


class TestWhileAMigrationRuns:
    async def test_no_backup_begins_and_it_says_why(self, settings: Settings) -> None:
        async with migrating(settings) as migration:
            await keep_backups_out(migration)
            pid = migration.get_server_pid()
            with pytest.raises(
                MigrationRuns, match=rf"a migration runs since \d s \(pid {pid}, [\w-]+-migrations\): noth"
            ):
                async with backing_up(settings):
                    pytest.fail("the backup began")
        async with backing_up(settings):  # the migration has ended
            pass  # that it begins, and raises nothing, is what is asked


class TestCancel:
    async def test_the_backup_ends_at_once_and_says_why(self, settings: Settings) -> None:
        ended: list[str] = []
        backup = asyncio.create_task(_until_ended(settings, began := asyncio.Event(), ended))
        await began.wait()
        async with migrating(settings) as migration:
            (cancelled,) = await cancel_backups(migration)
            assert cancelled.name.endswith("-backup")
            await keep_backups_out(migration)
        with pytest.raises(BackupEnded, match="--cancel-backup"):
            await asyncio.wait_for(backup, 5)
        assert ended == ["tidied up"]

    async def test_its_dump_ends_too(self, settings: Settings) -> None:
        session = {"application_name": backup_session_name(settings)}
        dump = await Connector(settings, session, seconds=5, migrating=True).connect()
        closed, other = asyncio.Event(), await open_session(settings, "read")
        dump.add_termination_listener(lambda _: closed.set())
        backup = asyncio.create_task(_until_ended(settings, began := asyncio.Event(), []))
        await began.wait()
        async with migrating(settings) as migration:
            await cancel_backups(migration)
        with pytest.raises(BackupEnded):
            await backup
        await asyncio.wait_for(closed.wait(), 5)
        assert await other.fetchval("SELECT 1") == 1
        await other.close()

    async def test_a_query_that_it_runs_is_no_other_failure(self, settings: Settings) -> None:
        """PostgreSQL tells the query first, and closes the connection a moment later."""

        async def backup() -> None:
            async with backing_up(settings) as connection:
                await connection.fetchval("SELECT pg_sleep(30)")

        running = asyncio.create_task(backup())
        async with migrating(settings) as migration:
            busy = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)')"
            async with asyncio.timeout(20):
                while not await migration.fetchval(busy):  # noqa: ASYNC110 - PostgreSQL changes it
                    await asyncio.sleep(0.01)
            await cancel_backups(migration)
        with pytest.raises(BackupEnded):
            await running

    async def test_whoever_cancels_the_task_ended_no_session(self, settings: Settings) -> None:
        backup = asyncio.create_task(_until_ended(settings, began := asyncio.Event(), []))
        await began.wait()
        backup.cancel()
        with pytest.raises(asyncio.CancelledError):
            await backup
        async with migrating(settings) as migration:
            assert await running_backups(migration) == []

    async def test_a_session_of_somebody_mightier_stays(self, services: Services, settings: Settings) -> None:
        environ = services.environ(settings.postgres_db)
        psql(services, "postgres", "DROP ROLE IF EXISTS weak")
        psql(services, "postgres", "CREATE ROLE weak LOGIN PASSWORD 'weak'")
        weak = load_settings(
            environ={**environ, "POSTGRES_USER": "weak", "POSTGRES_PASSWORD": "weak"}, sections=["database"]
        )
        try:
            async with backing_up(settings), migrating(weak) as migration:
                with pytest.raises(BackupRuns, match=r"this role may not end it: .*denied"):
                    await cancel_backups(migration)
                assert len(await running_backups(migration)) == 1
        finally:
            psql(services, "postgres", "DROP ROLE weak")
