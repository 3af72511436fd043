"""What stands between the service and PostgreSQL: refused by its name at the start, and nothing is left behind."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.database import Database, DatabaseUnavailable
from backend.metrics import Metrics
from backend.settings import load_settings
from pipeline.engines.embedded import postgres_user
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from tests.backend.process import ROOT, start, wait_until
from tests.backend.servers import PASSWORD, Postgres, postgres
from tests.services import psql

IGNORED = "lock_timeout,statement_timeout,idle_in_transaction_session_timeout"
POOLER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


@pytest.fixture(scope="module", name="own")
def _own() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@contextlib.contextmanager
def pooler(own: Postgres, folder: Path, **options: str) -> Iterator[str]:
    """A PgBouncer before `own`; yield its URL."""
    assert POOLER is not None
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port := free_port()),
        "unix_socket_dir": "",
        "auth_type": "any",
        **options,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    database = f"slipway = host={own.folder} dbname=postgres user=postgres password={PASSWORD}"
    config = own.folder / "pgbouncer.ini"
    config.write_text(f"[databases]\n{database}\n[pgbouncer]\n{lines}")
    config.chmod(0o644)
    with held([POOLER, str(config)], log=folder / "pgbouncer.log", user=postgres_user()):
        _wait_for(port, folder / "pgbouncer.log")
        yield f"postgresql://someone@127.0.0.1:{port}/slipway"


def _wait_for(port: int, log: Path) -> None:
    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    wait_until(listens, log.read_text())


@pytest.mark.skipif(POOLER is None, reason="no pgbouncer here")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"pool_mode": "transaction"}, id="refuses-parameters"),
        pytest.param({"pool_mode": "transaction", "ignore_startup_parameters": IGNORED}, id="mixes-sessions"),
        pytest.param({"pool_mode": "session", "ignore_startup_parameters": IGNORED}, id="drops-timeouts"),
    ],
)
class TestPooler:
    def test_a_service_behind_it_does_not_start(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """One line, that names the setting and the pooler, and exit code 2."""
        with pooler(own, tmp_path, **options) as url:
            service = start({"DATABASE_URL": url}, tmp_path)
            assert service.wait() == 2
        lines = [
            line for line in service.printed().splitlines() if line.startswith("DATABASE_URL: a connection pooler")
        ]
        assert lines, service.printed()
        assert "Traceback" not in service.printed()

    def test_migrations_through_it_do_not_begin(self, options: dict[str, str], own: Postgres, tmp_path: Path) -> None:
        """The same line and code, as often as it is tried, and no lock stays with anybody."""
        with pooler(own, tmp_path, **options) as url:
            for verb in ("upgrade", "upgrade"):
                command = [sys.executable, "-m", "backend.migrations", verb]
                run = subprocess.run(
                    command, env={"DATABASE_URL": url}, cwd=ROOT, capture_output=True, text=True, check=False
                )
                assert (run.returncode, len(run.stderr.splitlines())) == (2, 1), run.stderr
                assert run.stderr.startswith("DATABASE_URL: a connection pooler")
            psql(
                own.services,
                "postgres",
                "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'); END $$",
            )

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
