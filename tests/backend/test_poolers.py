"""What stands between the service and PostgreSQL: it works, or is refused by its name at the start."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from backend.database import Database, DatabaseUnavailable
from backend.exclusion import backing_up
from backend.metrics import Metrics
from backend.settings import SettingsError, load_settings
from tests.backend.poolers import KEEPS_STATEMENTS, needs_statements, pooler
from tests.backend.process import ROOT, serve, start, wait_until
from tests.backend.servers import PASSWORD, Postgres, postgres
from tests.services import psql

IGNORED = "lock_timeout,statement_timeout,idle_in_transaction_session_timeout"
NO_LOCKS = "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'); END $$"


@pytest.fixture(scope="module", name="own")
def _own() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


WRONG = {"pool_mode": "transaction", **({"max_prepared_statements": "0"} if KEEPS_STATEMENTS else {})}
RIGHT = {"pool_mode": "transaction", "max_prepared_statements": "50", "default_pool_size": "2"}
LETS_THROUGH = {"ignore_startup_parameters": IGNORED}


@pytest.mark.needs("pgbouncer")
@pytest.mark.parametrize(
    "options",
    [pytest.param(WRONG, id="refuses-parameters"), pytest.param({**WRONG, **LETS_THROUGH}, id="drops-parameters")],
)
class TestPoolerThatMixesStatements:
    """An older one, or one whose `max_prepared_statements` is 0."""

    def test_a_service_behind_it_does_not_start(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """One line, that names the setting and the pooler, and exit code 2."""
        with pooler(own, tmp_path, **options) as url:
            service = start({"DATABASE_URL": url}, tmp_path)
            assert service.wait() == 2
        lines = [
            line for line in service.printed().splitlines() if line.startswith("DATABASE_URL: a connection pooler")
        ]
        assert lines, service.printed()
        assert "max_prepared_statements" in lines[0]
        assert "Traceback" not in service.printed()

    async def test_one_that_comes_later_is_what_the_requests_name(
        self, options: dict[str, str], own: Postgres, tmp_path: Path
    ) -> None:
        """A service that began without its database says what its answers are about."""
        with pooler(own, tmp_path, **options) as url:
            settings = load_settings({"DATABASE_URL": url}, secrets_dir=tmp_path)
            database = Database(settings, Metrics("1"))
            await database.open()
            with pytest.raises(DatabaseUnavailable, match="a connection pooler"):
                async with database.lease():
                    pytest.fail("that is no session of its own")
            await database.close()


@needs_statements
@pytest.mark.parametrize(
    "options",
    [pytest.param(RIGHT, id="refuses-parameters"), pytest.param({**RIGHT, **LETS_THROUGH}, id="drops-parameters")],
)
class TestPoolerThatKeepsStatements:
    """PgBouncer 1.21 or newer in transaction mode, with two connections for all."""

    async def test_works_unchanged(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """Leases share its connections and never meet each other's statements; an error ends only its own."""
        with pooler(own, tmp_path, **options) as url:
            settings = load_settings({"DATABASE_URL": url}, secrets_dir=tmp_path)
            database = Database(settings, Metrics("1"))
            await database.open()

            async def ask(number: int) -> None:
                for column in range(5):
                    async with database.lease() as connection, connection.transaction():
                        query = f"SELECT $1::int AS c{(number + column) % 7}, pg_sleep(0.001)"
                        assert await connection.fetchval(query, number) == number

            await asyncio.gather(*map(ask, range(40)))
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with database.lease() as connection:
                    await connection.fetchval("SELECT 1 / $1::int", 0)
            await ask(1)
            await database.close()

    def test_timeouts_that_it_drops_are_told_with_the_way_to_set_them(
        self, options: dict[str, str], own: Postgres, tmp_path: Path
    ) -> None:
        """The service starts, and its log says what to run; with that, it says nothing."""
        with pooler(own, tmp_path, **options) as url:
            service = start({"DATABASE_URL": url}, tmp_path)
            wait_until(lambda: "the pooler drops the timeouts" in service.printed(), "no warning")
            (told,) = service.events("the pooler drops the timeouts of the sessions")
            service.send(signal.SIGKILL)
            service.wait()
        assert told["fix"].count("ALTER ROLE CURRENT_USER SET") == 3
        psql(own.services, "postgres", told["fix"])
        try:
            with pooler(own, tmp_path, **options) as url, serve({"DATABASE_URL": url}, tmp_path) as service:
                assert not service.events("the pooler drops the timeouts of the sessions")
        finally:
            psql(own.services, "postgres", "ALTER ROLE CURRENT_USER RESET ALL")

    def test_a_database_that_is_read_only_is_a_503(
        self, options: dict[str, str], own: Postgres, tmp_path: Path
    ) -> None:
        """What the pooler says of the server is old, so it is not asked."""
        with pooler(own, tmp_path, **options) as url, serve({"DATABASE_URL": url}, tmp_path) as service:
            _change(own, "ALTER SYSTEM SET default_transaction_read_only = on")
            try:
                with service.client() as client:
                    wait_until(lambda: client.get("/ready").status_code == 503, "ready")
                    assert "read-only" in client.get("/ready").json()["checks"]["database"]["detail"]
            finally:
                _change(own, "ALTER SYSTEM RESET default_transaction_read_only")
            with service.client() as client:
                wait_until(lambda: client.get("/ready").status_code == 200, service.printed())


@pytest.mark.needs("pgbouncer")
class TestMigrations:
    @pytest.mark.parametrize("options", [WRONG, RIGHT if KEEPS_STATEMENTS else WRONG, LETS_THROUGH])
    def test_never_go_through_a_pooler(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """One line with the way out, as often as it is tried, and no lock stays with anybody; on that way they go."""
        with pooler(own, tmp_path, **options) as url:
            for _ in range(2):
                run = _upgrade({"DATABASE_URL": url})
                assert (run.returncode, len(run.stderr.splitlines())) == (2, 1), run.stderr
                assert run.stderr.startswith("DATABASE_URL: a connection pooler")
                assert "MIGRATION_DATABASE_URL" in run.stderr
            direct = f"postgresql://postgres:{PASSWORD}@/postgres?host={own.folder}"
            run = _upgrade({"DATABASE_URL": url, "MIGRATION_DATABASE_URL": direct})
            assert (run.returncode, run.stdout[:13]) == (0, "nothing to do"), run.stderr
        psql(own.services, "postgres", NO_LOCKS)

    @pytest.mark.parametrize("options", [WRONG, RIGHT if KEEPS_STATEMENTS else WRONG, LETS_THROUGH])
    async def test_keep_no_backup_out_through_one(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """Nor does a backup keep migrations out there: its lock would be somebody else's."""
        with pooler(own, tmp_path, **options) as url:
            settings = load_settings(environ={**own.environ, "DATABASE_URL": url}, sections=["database"])
            with pytest.raises(SettingsError, match="DATABASE_URL: a connection pooler answers there"):
                async with backing_up(settings):
                    pytest.fail("it began")
        psql(own.services, "postgres", NO_LOCKS)

    def test_go_as_who_migrates(self, own: Postgres, tmp_path: Path) -> None:
        """MIGRATION_DATABASE_URL is the only one that they use, and the one that is named when it is wrong."""
        nowhere = f"postgresql://postgres@/postgres?host={tmp_path}"
        direct = f"postgresql://postgres:{PASSWORD}@/postgres?host={own.folder}"
        assert _upgrade({"DATABASE_URL": nowhere, "MIGRATION_DATABASE_URL": direct}).returncode == 0
        run = _upgrade({"DATABASE_URL": direct, "MIGRATION_DATABASE_URL": nowhere})
        assert (run.returncode, "cannot reach" in run.stderr) == (1, True)
        with pooler(own, tmp_path, pool_mode="session") as url:
            run = _upgrade({"DATABASE_URL": direct, "MIGRATION_DATABASE_URL": url})
            assert (run.returncode, run.stderr.partition(":")[0]) == (2, "MIGRATION_DATABASE_URL")


def _change(own: Postgres, statement: str) -> None:
    for each in (statement, "SELECT pg_reload_conf()"):
        psql(own.services, "postgres", each)


def _upgrade(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend.migrations", "upgrade"]
    return subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("parameter", "workers"), [("nosuch=1", "1"), ("statement_timeout=abc", "2")])
def test_a_parameter_that_postgresql_refuses_is_named_at_the_start(
    parameter: str, workers: str, own: Postgres, tmp_path: Path
) -> None:
    """One line of each worker, and exit code 2."""
    url = f"postgresql://postgres:{PASSWORD}@/postgres?host={own.folder}&options=-c%20{parameter}"
    service = start({"DATABASE_URL": url, "BACKEND_WORKERS": workers}, tmp_path)
    assert service.wait() == 2
    assert "DATABASE_URL: PostgreSQL refuses a parameter of the address" in service.printed()
    assert parameter.partition("=")[0] in service.printed()
    assert "Traceback" not in service.printed()
