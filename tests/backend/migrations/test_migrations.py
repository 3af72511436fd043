"""`python -m backend.migrations` on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from backend.migrations.__main__ import main
from backend.migrations.plan import HERE, plan
from tests.services import ROOT, Services, psql

UPGRADE = [sys.executable, "-m", "backend.migrations", "upgrade"]
EXPAND = '''"""{message}"""
from alembic import op
revision = "{revision}"
down_revision = "{down}"
contract_after = None
transactional = {transactional}
def upgrade():
    {body}
'''


@dataclass(frozen=True)
class Done:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


Run: TypeAlias = Callable[..., Done]


@pytest.fixture(name="database")
def _database(services: Services, worker_id: str) -> Iterator[str]:
    """An empty database, without any migration."""
    name = f"migrations_{worker_id}"
    psql(services, "postgres", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    psql(services, "postgres", f"CREATE DATABASE {name}")
    yield name
    psql(services, "postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="code")
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the migrations up to the first, to which a test adds its own (a team's 0002 is none of its matter)."""
    later = shutil.ignore_patterns("__pycache__", "000[2-9]_*", "00[1-9]?_*", "0[1-9]??_*")
    shutil.copytree(HERE, tmp_path / "migrations", ignore=later)
    monkeypatch.setattr("backend.migrations.plan.HERE", tmp_path / "migrations")
    return tmp_path / "migrations/versions"


@pytest.fixture(name="run")
def _run(
    services: Services, database: str, code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The command, in this process: starting Python and importing SQLAlchemy takes a second."""
    for name, value in services.environ(database).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Done:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def add(code: Path, number: int, body: str, *, transactional: bool = True) -> None:
    """Write migration NUMBER, whose upgrade() is BODY."""
    text = EXPAND.format(
        message=f"step {number}",
        revision=f"{number:04d}",
        down=f"{number - 1:04d}",
        body=body,
        transactional=transactional,
    )
    (code / f"{number:04d}_step.py").write_text(text)


def query(services: Services, database: str, statement: str) -> Any:
    """The first value of STATEMENT."""

    async def run() -> Any:
        connection = await asyncpg.connect(
            host=services.postgres_host,
            port=services.postgres_port,
            user=services.postgres_user,
            password=services.postgres_password,
            database=database,
        )
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


class TestUpgrade:
    def test_brings_an_empty_database_to_the_newest(self, run: Run) -> None:
        """Upgrade applies all, current says the revision, and upgrade again says that there is nothing to do."""
        assert run("current").stdout == "none\n"
        first = run("upgrade")
        assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001 releases and idempotency keys")
        assert run("current").stdout == "0001\n"
        again = run("upgrade")
        assert (again.returncode, again.stdout) == (0, "nothing to do: the database is at revision 0001\n")

    def test_stops_where_it_is_told(self, run: Run, code: Path) -> None:
        """--to REV goes no further; an unknown one is bad usage."""
        add(code, 2, 'op.execute("SELECT 1")')
        run("upgrade", "--to", "0001")
        assert run("current").stdout == "0001\n"
        assert run("upgrade", "--to", "0009").returncode == 2

    def test_a_newer_database_is_fine(self, run: Run, services: Services, database: str) -> None:
        """Code that is older than the database changes nothing and says so."""
        run("upgrade")
        psql(services, database, "UPDATE alembic_version SET version_num = '0007'")
        again = run("upgrade")
        assert (again.returncode, again.stdout) == (
            0,
            "nothing to do: the database is at revision 0007, newer than 0001, which is fine\n",
        )

    def test_a_failure_is_one_line_and_leaves_nothing_half_done(
        self, run: Run, code: Path, services: Services, database: str
    ) -> None:
        """The failing migration is rolled back whole, those before it stay, and one line says which and why."""
        add(code, 2, 'op.execute("CREATE TABLE kept (id int)")')
        add(code, 3, 'op.execute("CREATE TABLE half (id int)"); op.execute("SELECT 1 / 0")')
        failed = run("upgrade")
        assert failed.returncode == 1
        (line,) = failed.stderr.splitlines()
        assert "migration 0003 failed: division by zero" in line
        assert "nothing of it is half applied, the database is at revision 0002" in line
        assert run("current").stdout == "0002\n"
        assert query(services, database, "SELECT to_regclass('kept') IS NOT NULL AND to_regclass('half') IS NULL")

    def test_does_not_wait_long_for_a_table(
        self, run: Run, code: Path, services: Services, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A table that another session holds ends the migration after lock_timeout: later queries wait behind it."""
        monkeypatch.setattr("backend.migrations.runner.LOCK_TIMEOUT", "200ms")
        run("upgrade")
        add(code, 2, 'op.execute("ALTER TABLE releases ADD COLUMN extra text")')

        async def hold() -> Done:
            connection = await asyncpg.connect(
                host=services.postgres_host, port=services.postgres_port, user=services.postgres_user,
                password=services.postgres_password, database=database,
            )  # fmt: skip
            try:
                async with connection.transaction():
                    await connection.execute("LOCK TABLE releases IN ACCESS SHARE MODE")
                    return await asyncio.to_thread(run, "upgrade")
            finally:
                await connection.close()

        failed = asyncio.run(hold())
        assert (failed.returncode, "lock timeout" in failed.stderr) == (1, True)

    def test_two_at_once_apply_each_migration_once(self, services: Services, database: str) -> None:
        """The second waits for the first and finds nothing to do."""
        environ = {"PATH": os.environ["PATH"], **services.environ(database)}
        both = [
            subprocess.Popen(
                UPGRADE, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for _ in range(2)
        ]
        outputs = [process.communicate()[0] for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert sorted(output.split(" ", 1)[0] for output in outputs) == ["applied", "nothing"]

    def test_an_unreachable_database_is_one_line(self) -> None:
        """No database: exit 1, one line, the variables to look at."""
        environ = {"PATH": os.environ["PATH"], "POSTGRES_HOST": "/nowhere"}
        run = subprocess.run(UPGRADE, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        assert (run.returncode, len(run.stderr.splitlines()), "POSTGRES_*" in run.stderr) == (1, 1, True)


class TestConcurrently:
    INDEX = 'op.execute("CREATE UNIQUE INDEX CONCURRENTLY kept_idx ON kept (id)")'

    def test_an_invalid_index_is_removed_before_the_next_try(
        self, run: Run, code: Path, services: Services, database: str
    ) -> None:
        """A concurrent build that failed leaves an invalid index; the next try drops it and succeeds."""
        add(code, 2, 'op.execute("CREATE TABLE kept (id int)"); op.execute("INSERT INTO kept VALUES (1), (1)")')
        add(code, 3, self.INDEX, transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, run("current").stdout) == (1, "0002\n")
        assert not query(services, database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'kept_idx'::regclass")
        psql(services, database, "DELETE FROM kept")
        assert run("upgrade").stdout == "applied 0003 step 3\n"
        assert query(services, database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'kept_idx'::regclass")

    def test_stands_alone(self, run: Run, code: Path) -> None:
        """Two statements outside a transaction could be half applied, so they are refused before anything runs."""
        add(code, 2, f'op.execute("CREATE TABLE kept (id int)"); {self.INDEX}', transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, "0002" in failed.stderr, run("current").stdout) == (1, True, "none\n")


class TestPlan:
    def test_is_json_and_needs_no_database(self, run: Run, code: Path) -> None:
        """Plan gives revision, message, contract_after and the SQL of what comes after --from."""
        add(code, 2, 'op.execute("ALTER TABLE releases DROP COLUMN notes")')
        path = code / "0002_step.py"
        path.write_text(path.read_text().replace("contract_after = None", 'contract_after = "0001"'))
        (step,) = json.loads(run("plan", "--from", "0001").stdout)
        assert step == {
            "revision": "0002",
            "message": "step 2",
            "contract_after": "0001",
            "sql": "ALTER TABLE releases DROP COLUMN notes;",
        }
        assert [step["revision"] for step in json.loads(run("plan", "--from", "none", "--to", "0001").stdout)] == [
            "0001"
        ]

    def test_new_writes_the_next_number(self, run: Run) -> None:
        """`new` writes a migration that can be planned, fails while it has no SQL, and is applied once it has."""
        made = run("new", "add the owner")
        assert made.stdout.strip().endswith("0002_add_the_owner.py")
        assert [step["message"] for step in json.loads(run("plan", "--from", "0001").stdout)] == ["add the owner"]
        assert run("upgrade").returncode == 1
        path = Path(made.stdout.strip())
        path.write_text(path.read_text().replace("<the SQL>", "SELECT 1"))
        assert run("upgrade").returncode == 0

    def test_every_statement_passes_squawk(self, tmp_path: Path) -> None:
        """The shipped SQL blocks nobody. The runner sets the timeouts and opens the transactions."""
        for step in plan(None, None):
            path = tmp_path / f"{step.revision}.sql"
            path.write_text("SET lock_timeout = '4s';\nSET statement_timeout = '60s';\n" + step.sql)
            squawk = [str(Path(sys.executable).parent / "squawk"), "--assume-in-transaction", str(path)]
            run = subprocess.run(squawk, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stdout
