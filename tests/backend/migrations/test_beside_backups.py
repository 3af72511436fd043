"""A migration and a backup: neither begins while the other runs, with a real `pg_dump` in the middle of its work."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from backend.exclusion import BackupEnded, MigrationRuns, backing_up, backup_session_name
from backend.settings import Settings, load_settings
from pipeline.engines.embedded import find_engines
from tests.backend.migrations.conftest import Done, Run, add, query
from tests.backend.migrations.test_in_use import SLEEP, until, upgrading
from tests.services import Services, psql

Answer = TypeVar("Answer")

# 48 MB: more than a pipe holds, and what Linux may give a connection at both ends, some 36 MB.
FILL = "INSERT INTO board SELECT n, repeat(md5(n::text), 100) FROM generate_series(1, 15000) n"
LOCKS = "SELECT count(*) FROM pg_locks WHERE relation = to_regclass('board') AND mode = 'AccessShareLock' AND granted"
COLUMN = 'op.execute("ALTER TABLE board ADD COLUMN extra text")'
INDEX = 'op.execute("CREATE INDEX CONCURRENTLY board_idx ON board (id)")'
CHANGED = """
    SELECT to_regclass('alembic_history') IS NOT NULL AND EXISTS (SELECT FROM alembic_history WHERE revision = '0002')
    OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('board') AND attname = 'extra')
    OR to_regclass('board_idx') IS NOT NULL
"""


@pytest.fixture(name="settings")
def _settings(services: Services, database: str) -> Settings:
    return load_settings(environ=services.environ(database), sections=["database"])


@pytest.fixture(autouse=True)
def _rows(run: Run, services: Services, database: str) -> None:
    assert run("upgrade").returncode == 0
    psql(services, database, FILL)


@contextmanager
def dumping(services: Services, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A `pg_dump` that cannot go on, as nobody reads what it writes; it has its lock on the table."""
    binary, database = find_engines().postgres / "pg_dump", str(settings.postgres_db)
    place = {"PGHOST": services.postgres_host, "PGPORT": str(services.postgres_port), "PGDATABASE": database}
    who = {"PGUSER": services.postgres_user, "PGPASSWORD": services.postgres_password}
    environ = {**os.environ, **place, **who, "PGAPPNAME": backup_session_name(settings)}
    with subprocess.Popen([binary], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            until(lambda: query(services, database, LOCKS) == 1)
            yield process
        finally:
            process.kill()
            process.communicate()


def beside_a_backup(services: Services, settings: Settings, what: Callable[[], Answer]) -> tuple[Answer, bytes, str]:
    """Do WHAT in the middle of a backup; return its answer, what `pg_dump` said at last, and how the backup ended."""

    async def both() -> tuple[Answer, str]:
        asked = None
        try:
            async with backing_up(settings):
                asked = asyncio.create_task(asyncio.to_thread(what))
                return await asyncio.shield(asked), "whole"
        except BackupEnded as error:
            assert asked is not None
            return await asked, str(error)

    with dumping(services, settings) as dump:
        answer, ended = asyncio.run(both())
        _, said = dump.communicate()
    return answer, said + (b"" if dump.returncode == 0 else b"failed"), ended


@pytest.mark.parametrize(("body", "transactional"), [(COLUMN, True), (INDEX, False)])
class TestAMigrationDuringABackup:
    def test_is_refused_at_once_and_touches_nothing(
        self, body: str, *, transactional: bool, code: Path, run: Run, services: Services, settings: Settings
    ) -> None:
        """An index that is built beside the dump would wait for its snapshot, too."""
        add(code, 2, body, transactional=transactional)
        done, said, ended = beside_a_backup(services, settings, lambda: run("upgrade"))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("a backup runs since ")
        assert done.stderr.endswith("-backup): wait, or deploy with --cancel-backup; nothing was changed\n")
        assert (said, ended) == (b"", "whole")
        assert query(services, str(settings.postgres_db), CHANGED) is False
        assert run("upgrade").returncode == 0  # once it has ended
        assert query(services, str(settings.postgres_db), CHANGED) is True

    def test_ends_it_where_it_is_told_to(
        self, body: str, *, transactional: bool, code: Path, run: Run, services: Services, settings: Settings
    ) -> None:
        """The dump with it, which fails; then the migration does not wait for anybody."""
        add(code, 2, body, transactional=transactional)
        done, said, ended = beside_a_backup(services, settings, lambda: run("upgrade", "--cancel-backup"))
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[0].startswith("ended the backup that ran since ")
        assert lines[1:] == ["applied 0002 step 2"]
        assert b"terminat" in said
        assert said.endswith(b"failed")
        assert "--cancel-backup" in ended


class TestWithoutAMigrationThatIsPending:
    @pytest.mark.parametrize("arguments", [("upgrade",), ("upgrade", "--cancel-backup"), ("current",)])
    def test_the_backup_goes_on(
        self, arguments: tuple[str, ...], run: Run, services: Services, settings: Settings
    ) -> None:
        """A deploy without a migration has nothing against it."""
        done, said, ended = beside_a_backup(services, settings, lambda: run(*arguments))
        assert (done.returncode, done.stderr, said, ended) == (0, "", b"", "whole")


class TestStatus:
    def test_says_which_backup_runs(self, code: Path, run: Run, services: Services, settings: Settings) -> None:
        """Only where a migration is pending does it matter."""
        found, _, _ = beside_a_backup(services, settings, lambda: json.loads(run("status").stdout)["backup"])
        assert found is None
        add(code, 2, COLUMN)
        done, _, ended = beside_a_backup(services, settings, lambda: run("status"))
        assert json.loads(done.stdout)["backup"].startswith("since ")
        assert ended == "whole"
        assert json.loads(run("status").stdout)["backup"] is None


class TestABackupDuringAMigration:
    def test_is_refused_and_the_migration_goes_on(
        self, root: Path, code: Path, services: Services, settings: Settings
    ) -> None:
        """It says which session migrates, and since when."""
        add(code, 2, SLEEP.format(3))

        async def back_up() -> None:
            async with backing_up(settings):
                pytest.fail("it began")

        with upgrading(root, services, str(settings.postgres_db)) as process:
            with pytest.raises(
                MigrationRuns, match=r"a migration runs since \d+ s \(pid \d+, [\w-]+-migrations\): noth"
            ):
                asyncio.run(back_up())
            assert process.communicate()[0].endswith("applied 0002 step 2\n")


class TestTwoDeploys:
    def test_of_which_one_migrates_wait_for_each_other_as_before(
        self, root: Path, code: Path, services: Services, settings: Settings, run: Run
    ) -> None:
        """The migrations' own lock comes first: nobody takes another migration for a backup."""
        add(code, 2, SLEEP.format(1))
        with upgrading(root, services, str(settings.postgres_db)) as process:
            second: Done = run("upgrade")
            assert process.wait() == 0
        assert (second.returncode, second.stderr) == (0, "")
        assert "nothing to do" in second.stdout
