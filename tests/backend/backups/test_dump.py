"""A backup: what is in it, and that a failed one is none."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from backend.backups import store
from backend.backups.dump import LIMITS
from backend.backups.errors import BackupFailed
from backend.backups.manifest import read
from backend.postgres import Connector
from tests.backend.backups.conftest import REVISIONS, ROWS, Place

SECRET = "a-text-that-nobody-may-find"


class TestContent:
    async def test_is_what_its_manifest_says(self, place: Place) -> None:
        """Rows of each table, files with their checksums, and what it is of."""
        manifest = await place.back_up()
        assert manifest == read(place.folder / manifest.name)
        rows = {table.name: table.rows for table in manifest.tables}
        assert rows['"odd name"."Names"'] == 500
        assert rows["public.parts_1"] == 20
        assert "public.parts" not in rows  # its rows are its partitions'
        assert (manifest.project, manifest.release, manifest.revision) == ("keeper", "r1", REVISIONS[-1])
        assert (manifest.database, manifest.encrypted) == (place.database, ())
        for file in manifest.files:
            content = (place.folder / manifest.name / file.path).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)
        assert "BACKUP_RECIPIENTS is not set: the backup is not encrypted" in place.said

    async def test_is_encrypted_for_whom_it_is_set(self, place: Place) -> None:
        """No file shows what is in it, and its name says what it is."""
        place.run(f"UPDATE accounts SET name = '{SECRET}'")
        plain = await place.back_up()
        folder = place.folder / plain.name
        shown = "".join(_unpacked(path) for path in folder.glob("*.gz"))
        assert SECRET in shown  # who looks for it, would find it
        manifest = await place.back_up(given=place.encrypted())
        folder = place.folder / manifest.name
        assert all(file.path.endswith(".age") for file in manifest.files)
        assert all(path.read_bytes().startswith(b"age-encryption.org/v1") for path in folder.glob("*.age"))
        assert manifest.encrypted == (str(place.identity.to_public()),)

    async def test_counts_at_the_snapshot_of_the_dump(self, place: Place) -> None:
        """Under writes, the rows in the manifest are those in the dump."""
        stop = asyncio.Event()

        async def write() -> None:
            async with _session(place) as connection:
                while not stop.is_set():
                    await connection.execute('INSERT INTO "odd name"."Names" ("the text") VALUES (\'more\')')

        writer = asyncio.create_task(write())
        try:
            manifest = await place.back_up()
        finally:
            stop.set()
            await writer
        content = (place.folder / manifest.name).glob("*.gz")
        dumped = [_unpacked(path) for path in content]
        lines = next(text for text in dumped if "\tx\n" in text).splitlines()
        rows = {table.name: table.rows for table in manifest.tables}
        assert rows['"odd name"."Names"'] == len([line for line in lines if "\t" in line])

    async def test_has_several_jobs_from_a_size_on(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which all read one snapshot."""
        monkeypatch.setattr("backend.backups.dump.PARALLEL_BYTES", 1)
        manifest = await place.back_up(given=place.encrypted())
        assert any("2 at once" in line or "4 at once" in line for line in place.said) or os.cpu_count() == 1
        assert (await place.check(manifest.name, given=place.encrypted())).schema == "same"


class TestFailure:
    @pytest.fixture(autouse=True)
    def _nothing_left(self, place: Place) -> Iterator[None]:
        yield
        assert store.backups(place.folder) == []
        assert not place.folder.exists() or [*place.folder.iterdir()] == []

    async def test_programs_that_are_older_than_the_server(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Are named, with both versions."""
        _program(tmp_path / "old", "pg_dump", 'echo "pg_dump (PostgreSQL) 12.3"', monkeypatch)
        with pytest.raises(BackupFailed, match=r"the server is PostgreSQL 18, pg_dump is 12\.3"):
            await place.back_up()

    async def test_programs_that_are_missing(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Are named."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(BackupFailed, match="no program `pg_dump` on PATH"):
            await place.back_up()

    async def test_a_full_disk_beforehand(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is begun where there is no room for what a backup needs."""
        monkeypatch.setattr("backend.backups.store.free_bytes", lambda _: 1000)
        with pytest.raises(BackupFailed, match=r"has 1\.0 kB free, and a backup needs about"):
            await place.back_up()

    @pytest.mark.parametrize("encrypted", [False, True])
    def test_a_disk_that_gets_full(self, place: Place, *, encrypted: bool) -> None:
        """The dump, or its encryption, finds no room: one line, and nothing is left."""
        place.run("""INSERT INTO "odd name"."Names" ("the text") SELECT string_agg(md5(random()::text), '')
                     FROM generate_series(1, 100000) AS n GROUP BY n % 1000""")
        place.folder.mkdir()
        code = f"""if True:
            import os, subprocess, sys
            from backend.backups import store
            from backend.backups.__main__ import main
            size = "size={3000 if encrypted else 1000}k"
            subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", "{place.folder}"], check=True)
            store.free_bytes = lambda _: 1 << 40
            code = main(["backup"])
            print(os.listdir("{place.folder}"))
            sys.exit(code)"""
        done = subprocess.run(
            [*_own_mounts(), sys.executable, "-c", code],
            env={**os.environ, **place.environ, **(place.encrypted() if encrypted else {})},
            check=False,
            capture_output=True,
            text=True,
        )
        said = f"BACKUP_FOLDER: {place.folder} is full: nothing was kept; make room, or remove older backups there"
        assert done.stderr.splitlines()[-1].startswith(said), done.stderr
        assert (done.returncode, done.stdout) == (1, "[]\n")

    async def test_a_dump_that_ends_in_the_middle(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Whoever killed it, is not mistaken for an end."""
        version = 'case "$*" in *--version*) echo "pg_dump (PostgreSQL) 18.6"'
        script = f"{version};; *snapshot*) kill -9 $$;; *) echo zstd >&2; exit 1;; esac"
        _program(tmp_path / "killed", "pg_dump", script, monkeypatch)
        with pytest.raises(BackupFailed, match="it was killed by signal 9"):
            await place.back_up()

    async def test_an_ended_session_ends_it(self, place: Place) -> None:
        """Without it nobody keeps migrations out: pg_dump ends, too."""
        async with _waiting_dump(place) as program:
            others = running(place, "count(pg_terminate_backend(pid))")
            assert await place.ask(f"{others} AND wait_event_type IS DISTINCT FROM 'Lock'", "postgres") == 1
            assert await program.wait() == 1
            await _nobody_runs(place)

    async def test_a_table_that_somebody_keeps(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not waited for, with all who would wait behind."""
        monkeypatch.setitem(LIMITS, "lock_timeout", "300ms")
        async with _session(place) as blocker, blocker.transaction():
            await blocker.execute('LOCK TABLE "odd name"."Names" IN ACCESS EXCLUSIVE MODE')
            with pytest.raises(BackupFailed, match="a table was locked for"):
                await place.back_up()

    async def test_no_rows_where_there_were_some(self, place: Place) -> None:
        """A dump of an emptied database is refused."""
        before = await place.back_up()
        store.remove(place.folder / before.name)
        place.run('TRUNCATE "odd name"."Names", parts, accounts CASCADE')
        with pytest.raises(BackupFailed, match=rf"has no rows, and had {ROWS} in {before.name}"):
            await place.back_up(before)

    async def test_being_stopped(self, place: Place) -> None:
        """SIGTERM ends pg_dump and the sessions."""
        async with _waiting_dump(place) as program:
            program.send_signal(signal.SIGTERM)
            assert await program.wait() == 1
            await _nobody_runs(place)


def running(place: Place, what: str = "count(*)") -> str:
    """Return the query of WHAT of the sessions of backups of the place's database; other workers have theirs."""
    return (
        f"SELECT {what} FROM pg_stat_activity WHERE application_name = 'keeper-backup' AND datname = '{place.database}'"
    )


class TestKilled:
    async def test_leaves_nothing_that_looks_like_a_backup(self, place: Place) -> None:
        """After kill -9 pg_dump has ended, too; its part is no backup, and the next run removes it."""
        async with _waiting_dump(place) as program:
            program.kill()
            await program.wait()
            await _nobody_runs(place)
        left = [path.name for path in place.folder.iterdir()]
        assert len(left) == 1
        assert left[0].startswith(".part-")
        assert store.backups(place.folder) == []
        manifest = await place.back_up()
        assert f"removed {left[0]}, which a backup that was killed had left" in place.said
        assert [path.name for path in place.folder.iterdir()] == [manifest.name]

    async def test_leaves_no_plain_text_of_an_encrypted_backup(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """What was dumped and is not yet encrypted has no name: it is gone with the processes, whatever ends them."""
        place.run(f"UPDATE accounts SET name = '{SECRET}'")
        done = tmp_path / "done"
        # The real one, which has written everything and does not end yet.
        script = (
            f'"{shutil.which("pg_dump")}" "$@" || exit 1; case "$*" in *snapshot*) touch {done}; exec sleep 60; esac'
        )
        _program(tmp_path / "slow", "pg_dump", script, monkeypatch)
        program = await _program_of(place, "backup", **place.encrypted())
        async with asyncio.timeout(60):
            while not done.exists() or [*place.folder.rglob("*.dat*")]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        program.kill()
        await program.wait()
        assert [path for path in place.folder.rglob("*") if path.is_file()] == []

    async def test_does_not_remove_what_somebody_works_on(self, place: Place) -> None:
        """The part of a backup that runs stays."""
        place.folder.mkdir()
        with store.part(place.folder, "20260101T000000Z-aaaaaa") as (path, _):
            assert store.clear(place.folder) == []
            assert path.is_dir()


class TestShrunken:
    async def test_table_is_said(self, place: Place) -> None:
        """With its rows before and now, in a line and in the manifest; one that is gone as well."""
        before = await place.back_up()
        place.run('DELETE FROM "odd name"."Names" WHERE id > 100; DROP TABLE parts')
        manifest = await place.back_up(before)
        shrunken = {table.name: (table.before, table.rows) for table in manifest.shrunken}
        assert shrunken == {'"odd name"."Names"': (500, 100), "public.parts_1": (20, 0)}
        assert f'"odd name"."Names" has 100 rows; it had 500 in {before.name}' in place.said
        assert f"public.parts_1 is gone; it had 20 in {before.name}" in place.said


@contextlib.asynccontextmanager
async def _session(place: Place) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session of the owner's."""
    connection = await Connector(place.settings, {}, seconds=10).connect()
    try:
        yield connection
    finally:
        await connection.close()


async def _program_of(place: Place, verb: str, **changed: str) -> asyncio.subprocess.Process:
    """Begin `python -m backend.backups VERB`."""
    null = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backend.backups", verb, env={**os.environ, **place.environ, **changed},
        stdin=null, stdout=null, stderr=null,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def _waiting_dump(place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    """A backup whose pg_dump waits for a table that somebody keeps, and that is not counted: its partitions are."""
    async with _session(place) as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE ONLY parts IN ACCESS EXCLUSIVE MODE")
        program = await _program_of(place, "backup", **place.encrypted())
        async with asyncio.timeout(120):
            while not await place.ask(f"{running(place)} AND wait_event_type = 'Lock'", "postgres"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield program


async def _nobody_runs(place: Place) -> None:
    """Wait until no session of a backup is left, while the table is still kept."""
    async with asyncio.timeout(30):
        while await place.ask(running(place), "postgres"):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.05)


def _unpacked(path: Path) -> str:
    """What is in a file of a dump."""
    return gzip.decompress(path.read_bytes()).decode()


def _own_mounts() -> list[str]:
    """The beginning of a command that may mount for itself."""
    command = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nobody may mount here: {error}")
    return command


def _program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in front of all others."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
