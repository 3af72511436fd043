"""A restore: the same rows beside, with what no dump has; and that a failed one leaves nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from backend.backups.drill import drill
from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST
from backend.backups.plain import write_plain
from backend.backups.restore import drop, restore
from backend.backups.swap import compare
from backend.backups.verify import TOC, plain_name
from backend.migrations.runner import Wanted, upgrade
from tests.backend.backups.conftest import ALL_ROWS, REVISIONS, Place
from tests.services import psql

pytestmark = pytest.mark.usefixtures("turn")


@pytest.fixture(name="new")
def _new(place: Place) -> str:
    return f"{place.database}-new"


async def _restored(place: Place, new: str, **changed: str) -> dict[str, object]:
    manifest = await place.back_up(given=changed)
    return await restore(place.server(**changed), await place.check(manifest.name, given=changed), new, place.say)


class TestSame:
    @pytest.mark.parametrize("encrypted", [False, True])
    async def test_rows_and_checksums(self, place: Place, new: str, *, encrypted: bool) -> None:
        """Of all tables; large objects and sequences, too; nothing is left in the folder but the backup."""
        place.run('SELECT setval(\'"odd name"."Names_id_seq"\', 4000)')
        done = await _restored(place, new, **(place.encrypted() if encrypted else {}))
        assert await place.checksum(new) == await place.checksum(place.database)
        assert await place.ask("SELECT convert_from(lo_get(4711), 'utf8')", new) == "a large object"
        assert await place.ask('SELECT last_value FROM "odd name"."Names_id_seq"', new) == 4000
        assert (done["rows"], done["schema"], done["migrated"]) == (ALL_ROWS, "same", [])
        assert [path.name for path in place.folder.iterdir()] == [done["name"]]

    async def test_with_several_jobs(self, place: Place, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Which read several files at once."""
        monkeypatch.setattr("backend.backups.restore.PARALLEL_BYTES", 1)
        await _restored(place, new, **place.encrypted())
        assert await place.checksum(new) == await place.checksum(place.database)

    @pytest.mark.parametrize("encrypted", [False, True])
    async def test_pg_restore_reads_regular_files(self, place: Place, tmp_path: Path, *, encrypted: bool) -> None:
        """Newer ones take neither a pipe nor a symbolic link. What was encrypted is for nobody else."""
        given = place.encrypted() if encrypted else {}
        manifest = await place.back_up(given=given)
        (dump := tmp_path / "dump").mkdir()
        write_plain(await place.check(manifest.name, given=given), dump, place.say)
        there = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in os.scandir(dump)}
        assert there.keys() == {plain_name(file.path) for file in manifest.files}
        assert all(stat.S_ISREG(mode) for mode in there.values())
        assert not (encrypted and any(mode & 0o077 for name, mode in there.items() if name != TOC))

    async def test_owner_has_everything_and_the_service_may_write(self, place: Place, new: str) -> None:
        """The owner is no superuser; the group of the service has its rights again."""
        await _restored(place, new)
        owners = "SELECT array_agg(DISTINCT relowner::regrole::text) FROM pg_class WHERE relnamespace = "
        assert await place.ask(f"{owners}'public'::regnamespace", new) == [f'"{place.owner}"']
        query = f"SELECT has_table_privilege('{place.owner}-app', 'accounts', 'INSERT')"
        assert await place.ask(query, new)

    async def test_what_no_dump_has(self, place: Place, new: str) -> None:
        """Settings of the database and of a role in it, the right to connect, extensions; each is there again."""
        place.run(f"""
            CREATE SCHEMA extensions; CREATE EXTENSION pg_stat_statements WITH SCHEMA extensions;
            COMMENT ON EXTENSION pg_stat_statements IS 'of ours';
            REVOKE CONNECT ON DATABASE "{place.database}" FROM PUBLIC;
            GRANT CONNECT ON DATABASE "{place.database}" TO pg_monitor;
            ALTER DATABASE "{place.database}" SET work_mem = '5MB';
            ALTER ROLE "{place.owner}" IN DATABASE "{place.database}" SET search_path = "odd name", public;
        """)
        await _restored(place, new)
        settings = """SELECT array_agg(line ORDER BY line) FROM pg_db_role_setting, unnest(setconfig) AS line
                      WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '{}')"""
        expected = ['search_path="odd name", public', "work_mem=5MB"]
        assert await place.ask(settings.format(place.database)) == expected
        assert await place.ask(settings.format(new)) == expected
        assert not await place.ask(f"SELECT has_database_privilege('pg_read_all_data', '{new}', 'CONNECT')")
        assert await place.ask(f"SELECT has_database_privilege('pg_monitor', '{new}', 'CONNECT')")
        where = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'pg_stat_statements'"
        assert await place.ask(where, new) == "extensions"

    async def test_in_a_project_with_other_roles(self, place: Place, new: str) -> None:
        """What the owner had there, this owner has; of a role that is not here, it is said."""
        other = f"other-{place.owner}"
        place.run(f"""
            CREATE ROLE "{other}" LOGIN; CREATE ROLE "{other}-reader";
            ALTER ROLE "{other}" IN DATABASE "{place.database}" SET work_mem = '6MB';
            ALTER ROLE "{other}-reader" IN DATABASE "{place.database}" SET work_mem = '7MB';
            ALTER DATABASE "{place.database}" OWNER TO "{other}";
        """)
        manifest = await place.back_up()
        psql(place.services, place.database, f'DROP ROLE "{other}-reader"')
        assert manifest.properties.owner == other
        await restore(place.server(), await place.check(manifest.name), new, place.say)
        query = f"SELECT setconfig[1] FROM pg_db_role_setting WHERE setrole = '\"{place.owner}\"'::regrole"
        assert (
            await place.ask(f"{query} AND setdatabase = (SELECT oid FROM pg_database WHERE datname = '{new}')")
            == "work_mem=6MB"
        )
        assert f"{new}: role {other}-reader is not on this server: its work_mem was not set" in place.said
        place.run(f'ALTER DATABASE "{place.database}" OWNER TO "{place.owner}"; DROP ROLE "{other}"')

    async def test_an_older_schema_is_brought_up(self, place: Place, new: str) -> None:
        """By this release's migrations, which are named."""
        place.environ["POSTGRES_DB"] = f"{place.database}-older"
        place.run(f'CREATE DATABASE "{place.database}-older" OWNER "{place.owner}"')
        await upgrade(place.settings, Wanted(to=REVISIONS[-2]), place.say)
        done = await _restored(place, new)
        assert (done["schema"], done["revision"], done["migrated"]) == ("older", REVISIONS[-2], REVISIONS[-1:])
        assert await place.ask("SELECT version_num FROM alembic_version", new) == REVISIONS[-1]


class TestRefused:
    async def test_a_schema_that_this_release_does_not_know(self, place: Place, new: str) -> None:
        """It names the release that made it; no database is made."""
        place.run("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(BackupFailed, match=r"revision 9999 is unknown to this release: .* made it \(r1\)"):
            await _restored(place, new)
        assert new not in await place.databases()

    async def test_the_database_that_serves(self, place: Place) -> None:
        """It is never restored over."""
        with pytest.raises(BackupFailed, match="is the database that serves"):
            await _restored(place, place.database)

    async def test_a_database_of_somebody(self, place: Place, new: str) -> None:
        """What has tables and no restore made, stays."""
        place.run(f'CREATE DATABASE "{new}"')
        place.run("CREATE TABLE mine ()", new)
        with pytest.raises(BackupFailed, match=f"there is a database {new} already"):
            await _restored(place, new)
        with pytest.raises(BackupFailed, match="no restore made it"):
            await drop(place.server(), new)
        assert new in await place.databases()

    @pytest.mark.parametrize("name", ["", "a b", "x" * 64, "dbname=postgres", "-x"])
    async def test_a_name_that_is_none(self, place: Place, name: str) -> None:
        """Before anything is made."""
        with pytest.raises(BackupFailed, match="no name for a database"):
            await _restored(place, name)

    async def test_without_the_right_to_make_databases(self, place: Place, new: str) -> None:
        """It says who may, and how the owner could."""
        manifest = await place.back_up()
        del place.environ["POSTGRES_SUPERUSER"], place.environ["POSTGRES_SUPERUSER_PASSWORD"]
        with pytest.raises(BackupFailed, match=rf"role {place.owner} may not create databases: set POSTGRES_SUPERUSER"):
            await restore(place.server(), await place.check(manifest.name), new, place.say)

    async def test_an_owner_who_may_is_enough(self, place: Place, new: str) -> None:
        """As where others manage PostgreSQL: with CREATEDB no superuser is needed."""
        manifest = await place.back_up()
        await restore(place.server(), await place.check(manifest.name), f"{new}-roles", place.say)
        place.run(f'ALTER ROLE "{place.owner}" CREATEDB')
        try:
            del place.environ["POSTGRES_SUPERUSER"], place.environ["POSTGRES_SUPERUSER_PASSWORD"]
            await restore(place.server(), await place.check(manifest.name), new, place.say)
        finally:
            place.run(f'ALTER ROLE "{place.owner}" NOCREATEDB')
        assert await place.checksum(new) == await place.checksum(place.database)
        assert await place.ask(f"SELECT has_table_privilege('{place.owner}-app', 'accounts', 'INSERT')", new)


class TestFailure:
    async def test_an_error_of_pg_restore_counts(self, place: Place, new: str) -> None:
        """The first one ends it, and is told; the database is dropped."""
        # A check that looks at another table, which is empty when these rows come.
        place.run(f"""SET ROLE "{place.owner}"; CREATE SCHEMA a;
                     CREATE FUNCTION a.known() RETURNS bool LANGUAGE sql
                         AS 'SELECT EXISTS (SELECT FROM public.accounts)';
                     CREATE TABLE a.checked (n int CHECK (a.known())); INSERT INTO a.checked VALUES (4)""")
        with pytest.raises(BackupFailed, match=r"^pg_restore: .*violates check constraint"):
            await _restored(place, new)
        assert new not in await place.databases()
        assert f"dropped {new}, which was half made" in place.said

    async def test_rows_that_are_not_those_of_the_manifest(self, place: Place, new: str) -> None:
        """The table is named, with both numbers."""
        manifest = await place.back_up()
        path = place.folder / manifest.name / MANIFEST
        text = json.loads(path.read_text())
        text["tables"] = [{**one, "rows": one["rows"] + 1} if "Names" in one["name"] else one for one in text["tables"]]
        path.write_text(json.dumps(text))
        with pytest.raises(
            BackupFailed, match=r'"odd name"\."Names" has 500 rows after the restore, and 501 in the manif'
        ):
            await restore(place.server(), await place.check(manifest.name), new, place.say)
        assert new not in await place.databases()

    async def test_what_cannot_be_decrypted_on_the_way(self, place: Place, new: str) -> None:
        """The file is named, and not what pg_restore made of half of it."""
        manifest = await place.back_up(given=place.encrypted())
        checked = await place.check(manifest.name, given=place.encrypted())
        data = max((place.folder / manifest.name).glob("*.dat.gz.age"), key=lambda path: path.stat().st_size)
        data.write_bytes(data.read_bytes()[:-10])
        with pytest.raises(BackupFailed, match=rf"{data.name} cannot be decrypted: it ends too early"):
            await restore(place.server(**place.encrypted()), checked, new, place.say)
        assert new not in await place.databases()

    async def test_without_room_to_decrypt(self, place: Place, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """It says how much it takes, and leaves no database."""
        manifest = await place.back_up(given=place.encrypted())
        checked = await place.check(manifest.name, given=place.encrypted())
        monkeypatch.setattr("backend.backups.store.free_bytes", lambda _: manifest.bytes - 1)
        with pytest.raises(BackupFailed, match=rf"to decrypt {manifest.name} takes .*: make room"):
            await restore(place.server(**place.encrypted()), checked, new, place.say)
        assert new not in await place.databases()

    async def test_being_stopped(self, place: Place, new: str) -> None:
        """SIGTERM drops the database, and ends pg_restore."""
        program, begun = await _slow_restore(place, new)
        await begun()
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 1
        assert new not in await place.databases()

    async def test_after_a_kill_it_is_made_anew(self, place: Place, new: str) -> None:
        """What a restore that was killed has left does not stand in the way of the next one."""
        program, begun = await _slow_restore(place, new)
        await begun()
        program.kill()
        await program.wait()
        assert new in await place.databases()
        place.run("DROP FUNCTION slow CASCADE")
        await _restored(place, new)
        assert f"dropped {new}, which was empty, or left by a restore that was killed" in place.said
        assert await place.checksum(new) == await place.checksum(place.database)

    async def test_only_one_at_a_time(self, place: Place, new: str) -> None:
        """The second one says so."""
        manifest = await place.back_up()
        checked = await place.check(manifest.name)
        async with place.server().alone():
            with pytest.raises(BackupFailed, match=r"another restore or swap runs on this server \(pid \d+\)"):
                await restore(place.server(), checked, new, place.say)


async def _slow_restore(place: Place, new: str) -> tuple[asyncio.subprocess.Process, Callable[[], Awaitable[None]]]:
    """Begin a restore that takes a minute, and return it with a function that waits until it is in the middle."""
    place.run(f"""CREATE FUNCTION slow(int) RETURNS int LANGUAGE sql IMMUTABLE AS
                  'SELECT CASE WHEN current_database() = ''{new}'' THEN (SELECT $1 FROM pg_sleep(60)) ELSE $1 END';
                  CREATE INDEX ON parts_1 (slow(id))""")  # fmt: skip
    manifest = await place.back_up()
    null = asyncio.subprocess.DEVNULL
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backend.backups", "restore", manifest.name, "--into", new,
        env={**os.environ, **place.environ}, stdin=null, stdout=null, stderr=null,
    )  # fmt: skip

    async def begun() -> None:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{new}' AND query LIKE 'CREATE INDEX%'"
        async with asyncio.timeout(90):
            while not await place.ask(query, "postgres"):  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(0.05)

    return program, begun


class TestCompare:
    async def test_says_what_would_be_lost(self, place: Place, new: str) -> None:
        """Rows of each table here and there, and since when they may differ."""
        done = await _restored(place, new)
        place.run(f"""SET ROLE "{place.owner}"; CREATE TABLE more AS SELECT 1;
                      INSERT INTO "odd name"."Names" ("the text") SELECT 'x' FROM generate_series(1, 7)""")
        told = await compare(place.server(), new)
        assert (told["serving"], told["since"], told["lost"]) == (place.database, done["snapshot"], 8)
        tables = {one["name"]: (one["rows"], one["serving"]) for one in told["tables"]}
        assert tables['"odd name"."Names"'] == (500, 507)
        assert tables["public.more"] == (None, 1)


class TestDrill:
    async def test_on_a_server_that_knows_nobody(self, place: Place) -> None:
        """The owner and the service's roles are made; it says the age and what it has."""
        manifest = await place.back_up()
        place.environ |= {"POSTGRES_USER": f"{place.owner}-drill", "POSTGRES_DB": f"{place.database}-drill"}
        done = await drill(place.server(), await place.check(manifest.name), place.say)
        assert done["age"] >= done["seconds"] > 0
        assert await place.checksum(f"{place.database}-drill") == await place.checksum(place.database)
        owned = f"SELECT count(*) FROM pg_class WHERE relowner = '\"{place.owner}-drill\"'::regrole"
        assert await place.ask(owned, f"{place.database}-drill") > 0

    async def test_never_where_there_are_tables(self, place: Place) -> None:
        """So that it cannot end a database that is used, whatever it was given."""
        manifest = await place.back_up()
        with pytest.raises(BackupFailed, match=f"there is a database {place.database} already"):
            await drill(place.server(), await place.check(manifest.name), place.say)
