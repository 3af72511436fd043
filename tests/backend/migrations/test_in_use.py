"""Migrations on a database that others use: how long they wait, for whom, and what is left when they are stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.backend.migrations.conftest import Done, Run, add, query
from tests.project import NAME
from tests.services import Services, psql

INDEX = 'op.execute("CREATE INDEX CONCURRENTLY board_idx ON board (id)")'
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('board_idx')"
LEFT = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}-migrations' AND state = 'active'"
SLEEP = 'op.execute("CREATE TABLE slept (id int)"); op.execute("SELECT pg_sleep({})")'
GONE_SECONDS = 10  # PostgreSQL looks for its client once a second; the machine may be busy


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens in this process is looked at more often."""
    monkeypatch.setattr("backend.migrations.waiting.FIRST_SECONDS", 0.1)
    monkeypatch.setattr("backend.migrations.waiting.EVERY_SECONDS", 0.1)


@asynccontextmanager
async def somebody(services: Services, database: str, *statements: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Another application, in the middle of a transaction of these STATEMENTS."""
    connection = await asyncpg.connect(
        host=services.postgres_host, port=services.postgres_port, user=services.postgres_user,
        password=services.postgres_password, database=database, server_settings={"application_name": "monthly-report"},
    )  # fmt: skip
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for statement in statements:
            await connection.execute(statement)
        yield connection
    finally:
        await connection.close()


def start(root: Path, services: Services, database: str, **environ: str) -> subprocess.Popen[str]:
    """The command as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "backend.migrations", "upgrade"],
        cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **services.environ(database), **environ},
    )  # fmt: skip


@contextmanager
def upgrading(root: Path, services: Services, database: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, in the middle of a statement that sleeps."""
    process = start(root, services, database, **environ)
    try:
        until(lambda: query(services, database, f"{LEFT} AND query LIKE '%pg_sleep%'") == 1)
        yield process
    finally:
        process.kill()
        process.communicate()


def until(what: Any) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def seconds_until_gone(services: Services, database: str) -> float:
    """Return how long the statement of the migration still ran."""
    begun = time.monotonic()
    until(lambda: query(services, database, LEFT) == 0)
    return time.monotonic() - begun


def upgrade_beside(run: Run, services: Services, database: str, sql: str) -> Done:
    """Upgrade while somebody has a transaction open in which they did SQL."""

    async def both() -> Done:
        async with somebody(services, database, sql):
            return await asyncio.to_thread(run, "upgrade")

    return asyncio.run(both())


class TestWaiting:
    def test_an_index_waits_for_an_old_snapshot_and_names_it(
        self, root: Path, code: Path, run: Run, services: Services, database: str
    ) -> None:
        """For longer than `lock_timeout`; with pid, application and the transaction's age, and without its query."""
        run("upgrade")
        add(code, 2, INDEX, transactional=False)
        patient = f"{LEFT} AND query LIKE 'CREATE INDEX%' AND query_start < clock_timestamp() - interval '5 s'"

        async def both() -> tuple[int, str, str]:
            async with somebody(services, database, "SELECT 'a secret value' FROM board") as other:
                process = await asyncio.to_thread(start, root, services, database)
                assert process.stdout is not None
                line = await asyncio.to_thread(process.stdout.readline)
                await asyncio.to_thread(until, lambda: query(services, database, patient) == 1)
                await other.execute("COMMIT")
                out, err = await asyncio.to_thread(process.communicate)
                assert process.returncode == 0, err
                return other.get_server_pid(), line, line + out + err

        pid, line, said = asyncio.run(both())
        assert f"waits for pid {pid} (monthly-report, its transaction is open for " in line
        assert "secret" not in said
        assert query(services, database, VALID) is True

    def test_who_held_a_lock_is_named(self, run: Run, code: Path, services: Services, database: str) -> None:
        """In the line of the failure, for whoever reads the report."""
        run("upgrade")
        add(code, 2, 'op.execute("ALTER TABLE board ADD COLUMN extra text")')
        failed = upgrade_beside(run, services, database, "LOCK TABLE board IN ACCESS SHARE MODE")
        assert failed.returncode == 1
        assert "lock timeout; it waited for pid " in failed.stderr
        assert "(monthly-report, " in failed.stderr

    def test_the_limit_ends_a_build_and_the_line_says_what_is_left(
        self, run: Run, code: Path, services: Services, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An invalid index is there, so nobody says that nothing is; the next try drops it."""
        run("upgrade")
        add(code, 2, INDEX, transactional=False)
        monkeypatch.setenv("MIGRATION_TIMEOUT_SECONDS", "1")
        failed = upgrade_beside(run, services, database, "SELECT 1 FROM board")
        assert failed.returncode == 1
        assert "migration 0002 failed: " in failed.stderr
        assert "index board_idx is left, invalid, and the next try drops it first" in failed.stderr
        assert "half applied" not in failed.stderr
        assert "it waited for pid " in failed.stderr
        assert query(services, database, VALID) is False
        monkeypatch.delenv("MIGRATION_TIMEOUT_SECONDS")
        assert run("upgrade").returncode == 0
        assert query(services, database, VALID) is True

    def test_another_statement_that_leaves_something_says_what(
        self, run: Run, code: Path, services: Services, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rebuilt index, a partition: with the way out, as no next try drops them."""
        run("upgrade")
        for statement in (
            "CREATE INDEX board_idx ON board (id)",
            "CREATE TABLE parts (id int) PARTITION BY RANGE (id)",
            "CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        ):
            psql(services, database, statement)
        monkeypatch.setenv("MIGRATION_TIMEOUT_SECONDS", "3")

        async def fails(statement: str) -> str:
            add(code, 2, f'op.execute("{statement}")', transactional=False)
            async with somebody(services, database, "SELECT 1 FROM board, parts"):
                return (await asyncio.to_thread(run, "upgrade")).stderr

        said = asyncio.run(fails("REINDEX INDEX CONCURRENTLY board_idx"))
        assert "index board_idx_ccnew is left, invalid, until `DROP INDEX CONCURRENTLY board_idx_ccnew`" in said
        said = asyncio.run(fails("ALTER TABLE parts DETACH PARTITION part CONCURRENTLY"))
        assert "partition part is half detached, until `ALTER TABLE parts DETACH PARTITION part FINALIZE`" in said
        assert "half applied" not in said

    def test_the_limit_is_of_all_migrations_together(
        self, run: Run, code: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each of these alone would be in time."""
        for number in (2, 3, 4):
            add(code, number, SLEEP.replace("slept", f"slept_{number}").format(0.6))
        monkeypatch.setenv("MIGRATION_TIMEOUT_SECONDS", "1")
        failed = run("upgrade")
        assert failed.returncode == 1
        assert "the migrations of a deploy may take 1 s (`migration_timeout`)" in failed.stderr
        assert run("current").stdout != "0004\n"

    def test_a_limit_that_is_no_number_is_bad_usage(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """One line, without a traceback."""
        monkeypatch.setenv("MIGRATION_TIMEOUT_SECONDS", "soon")
        failed = run("upgrade")
        assert (failed.returncode, failed.stderr.startswith("MIGRATION_TIMEOUT_SECONDS: `soon`")) == (2, True)


class TestStopped:
    def test_sigterm_cancels_the_statement(self, root: Path, code: Path, services: Services, database: str) -> None:
        """In the database, too; nothing of the migration is applied, and one line says so."""
        add(code, 2, SLEEP.format(50))
        with upgrading(root, services, database) as process:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
            assert process.returncode == 1
            assert err.splitlines() == [
                "migration 0002 failed: it was stopped; nothing of it is half applied, the database is at revision 0001"
            ]
            assert seconds_until_gone(services, database) < GONE_SECONDS
        assert query(services, database, "SELECT to_regclass('slept') IS NULL")

    def test_a_killed_one_goes_on_for_no_more_than_seconds(
        self, root: Path, code: Path, services: Services, database: str
    ) -> None:
        """PostgreSQL looks whether its client is still there, in the middle of a statement."""
        add(code, 2, SLEEP.format(50))
        with upgrading(root, services, database) as process:
            process.kill()
            assert seconds_until_gone(services, database) < GONE_SECONDS
        assert query(services, database, "SELECT to_regclass('slept') IS NULL")

    def test_on_kubernetes_sigterm_lets_it_end(self, root: Path, code: Path, services: Services, database: str) -> None:
        """A node that is drained waits as long as the grace period; a build that is nearly done need not begin anew."""
        add(code, 2, SLEEP.format(2))
        with upgrading(root, services, database, MIGRATION_ON_SIGTERM="finish") as process:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=60)
        assert (process.returncode, "SIGTERM: the migrations end first" in out) == (0, True)
        assert "applied 0002 step 2" in out

    def test_stop_ends_whoever_migrates(
        self, run: Run, root: Path, code: Path, services: Services, database: str
    ) -> None:
        """From anywhere that reaches the database."""
        add(code, 2, SLEEP.format(50))
        assert run("stop").stdout == "no migration runs\n"
        with upgrading(root, services, database) as process:
            assert run("stop").stdout.startswith("ended pid ")
            _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        [line] = err.splitlines()
        assert line.startswith("migration 0002 failed: ")
        assert query(services, database, "SELECT to_regclass('slept') IS NULL")
