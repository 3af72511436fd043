"""`python -m backend.migrations` on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.backend.migrations.conftest import Done, Run, add, query
from tests.services import ROOT, Services, psql

UPGRADE = [sys.executable, "-m", "backend.migrations", "upgrade"]


class TestUpgrade:
    def test_brings_an_empty_database_to_the_newest(self, run: Run) -> None:
        """Upgrade applies all, current says the revision, and upgrade again says that there is nothing to do."""
        assert run("current").stdout == "none\n"
        first = run("upgrade")
        assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001 step 1")
        assert run("current").stdout == "0001\n"
        again = run("upgrade")
        assert (again.returncode, again.stdout) == (0, "nothing to do: the database is at revision 0001\n")

    def test_what_alembic_says_has_the_shape_of_the_log(self, run: Run, code: Path) -> None:
        """A warning is an event on standard error, without a password in it; standard output is for who asked."""
        said = 'import logging; logging.getLogger("alembic").warning("no postgresql://me:canary@db/x")'
        add(code, 2, f'{said}; op.execute("SELECT 1")')
        done = run("upgrade")
        assert done.stdout.splitlines() == ["applied 0001 step 1", "applied 0002 step 2"]
        events = [json.loads(line) for line in done.stderr.splitlines()]  # a plan runs the migration, too
        assert all({"timestamp", "release"} <= event.keys() for event in events)
        told = {(event["event"], event["level"], event["logger"]) for event in events}
        assert told == {("no postgresql://me:***@db/x", "warning", "alembic")}

    def test_stops_where_it_is_told(self, run: Run, code: Path) -> None:
        """--to REV goes no further; an unknown one is bad usage."""
        add(code, 2, 'op.execute("SELECT 1")')
        run("upgrade", "--to", "0001")
        assert run("current").stdout == "0001\n"
        assert run("upgrade", "--to", "0009").returncode == 2

    def test_a_newer_database_is_fine(self, run: Run, code: Path) -> None:
        """Code that is older than the database changes nothing and says so."""
        add(code, 2, 'op.execute("SELECT 1")')
        run("upgrade")
        (code / "0002_step.py").unlink()
        again = run("upgrade")
        assert (again.returncode, again.stdout) == (
            0,
            "nothing to do: the database is at revision 0002, newer than 0001, which is fine\n",
        )

    def test_refuses_a_database_that_was_not_expected(self, run: Run) -> None:
        """What was checked was another one: nothing is changed."""
        failed = run("upgrade", "--expect", "0001")
        assert (failed.returncode, run("current").stdout) == (1, "none\n")
        assert "at revision none and was at 0001 when it was checked: nothing was changed" in failed.stderr
        assert run("upgrade", "--expect", "none").returncode == 0

    def test_code_that_raises_is_one_line(self, run: Run, code: Path) -> None:
        """Whatever it raises: no traceback, and nothing is half applied."""
        add(code, 2, 'op.execute("CREATE TABLE half (id int)"); op.get_bind().no_such_thing()')
        failed = run("upgrade")
        assert (failed.returncode, run("current").stdout) == (1, "0001\n")
        (line,) = failed.stderr.splitlines()
        assert line.startswith("migration 0002 failed: AttributeError: ")

    def test_files_that_are_no_chain_are_bad_usage(self, run: Run, code: Path) -> None:
        """Alembic alone would warn of the one, and say nothing of the other."""
        add(code, 2, 'op.execute("SELECT 1")')
        twin = (code / "0002_step.py").read_text()
        (code / "0002_twin.py").write_text(twin)
        failed = run("upgrade")
        assert (failed.returncode, "Revision 0002 is present more than once" in failed.stderr) == (2, True)
        assert "0002_step.py, 0002_twin.py: `nox -s migration -- --renumber 0002_twin.py`" in failed.stderr
        for number in (3, 4):  # a chain behind it
            add(code, number, 'op.execute("SELECT 1")')
        failed = run("upgrade")
        assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1), failed.stderr
        for number in (3, 4):
            (code / f"{number:04}_step.py").unlink()
        (code / "0002_twin.py").rename(code / "0003_fork.py").write_text(twin.replace('"0002"', '"0003"'))
        failed = run("plan")
        assert (failed.returncode, "they have the heads 0002, 0003" in failed.stderr) == (2, True)

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
        monkeypatch.setattr("backend.migrations.connection.LOCK_TIMEOUT", "200ms")
        run("upgrade")
        add(code, 2, 'op.execute("ALTER TABLE board ADD COLUMN extra text")')

        async def hold() -> Done:
            connection = await asyncpg.connect(
                host=services.postgres_host, port=services.postgres_port, user=services.postgres_user,
                password=services.postgres_password, database=database,
            )  # fmt: skip
            try:
                async with connection.transaction():
                    await connection.execute("LOCK TABLE board IN ACCESS SHARE MODE")
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

    def test_an_index_that_is_there_already_says_what_to_write(self, run: Run, code: Path) -> None:
        """A try that was killed after its statement and before its record has built it."""
        add(
            code, 2, 'op.execute("CREATE TABLE kept (id int)"); op.execute("CREATE UNIQUE INDEX kept_idx ON kept (id)")'
        )
        add(code, 3, self.INDEX, transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, "write IF NOT EXISTS" in failed.stderr) == (1, True)
        path = code / "0003_step.py"
        path.write_text(path.read_text().replace("CONCURRENTLY kept", "CONCURRENTLY IF NOT EXISTS kept"))
        assert run("upgrade").stdout == "applied 0003 step 3\n"

    def test_stands_alone(self, run: Run, code: Path) -> None:
        """Two statements outside a transaction could be half applied, so they are refused before anything runs."""
        add(code, 2, f'op.execute("CREATE TABLE kept (id int)"); {self.INDEX}', transactional=False)
        failed = run("upgrade")
        assert (failed.returncode, "0002" in failed.stderr, run("current").stdout) == (1, True, "none\n")


class TestPlan:
    def test_is_json_and_needs_no_database(self, run: Run, code: Path) -> None:
        """Plan gives revision, message, contract_after and the SQL of what comes after --from."""
        add(code, 2, 'op.execute("ALTER TABLE board DROP COLUMN notes")')
        path = code / "0002_step.py"
        path.write_text(path.read_text().replace("contract_after = None", 'contract_after = "0001"'))
        (step,) = json.loads(run("plan", "--from", "0001").stdout)
        assert step == {
            "revision": "0002",
            "message": "step 2",
            "contract_after": "0001",
            "destroys": None,
            "checksum": step["checksum"],
            "sql": "ALTER TABLE board DROP COLUMN notes;",
            "losses": [],
            "proven": [],
            "writes": [],
        }
        assert [step["revision"] for step in json.loads(run("plan", "--from", "none", "--to", "0001").stdout)] == [
            "0001"
        ]

    @pytest.mark.filterwarnings("default")
    def test_takes_a_backslash_before_a_colon(self, run: Run, code: Path) -> None:
        """As the template says; Python only warns of it."""
        add(code, 2, "op.execute(\"SELECT 'a\\:b'\")")
        assert run("upgrade").returncode == 0

    def test_new_writes_the_next_number(self, run: Run) -> None:
        """`new` writes a migration that can be planned, fails while it has no SQL, and is applied once it has."""
        made = run("new", "add the owner")
        assert made.stdout.strip().endswith("0002_add_the_owner.py")
        assert [step["message"] for step in json.loads(run("plan", "--from", "0001").stdout)] == ["add the owner"]
        assert run("upgrade").returncode == 1
        path = Path(made.stdout.strip())
        path.write_text(path.read_text().replace("<the SQL>", "SELECT 1"))
        assert run("upgrade").returncode == 0
