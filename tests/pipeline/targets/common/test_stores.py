"""What is wrong with the data stores: each finding made true on a real PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from redis import Redis

from pipeline.engines.embedded import throwaway_valkey
from pipeline.errors import SlipwayError
from pipeline.releases.migrations import required_revision
from pipeline.targets.common.stores import probe_command, read_stores, store_findings
from tests.services import ROOT, Services, psql

DEPLOY = "nox -s deploy -- local"
NEWEST = required_revision(ROOT) or ""  # of the service that is here
SOUND = {"used_memory": 10, "maxmemory": 100, "maxmemory_policy": "allkeys-lru", "connected_clients": 1,
         "maxclients": 100, "aof_last_write_status": "ok"}  # fmt: skip


def probe(environ: Mapping[str, str], *stores: str, **patience: float) -> dict[str, Any]:
    """What the script says, run as a replica runs; PATIENCE shortens its constants."""
    dash_c, script, *names = probe_command(*stores)
    for name, seconds in patience.items():
        before = next(line for line in script.splitlines() if line.startswith(f"{name} = "))
        script = script.replace(before, f"{name} = {seconds}")
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, dash_c, script, *names]
    done = subprocess.run(command, cwd=ROOT, env={**clean, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_stores(done.stdout)


def found(environ: Mapping[str, str], needed: str | None = NEWEST, **patience: float) -> list[str]:
    """What is wrong with the database of ENVIRON; slots are the whole server's, and another test's business."""
    seen = probe(environ, "database", **patience)
    seen["database"].pop("slots", None)
    return store_findings({"database": {"slots": [], **seen["database"]}}, needed, DEPLOY)


@asynccontextmanager
async def connected(services: Services, database: str, **other: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(
        host=services.postgres_host,
        port=services.postgres_port,
        user=other.get("user", services.postgres_user),
        password=other.get("password", services.postgres_password),
        database=database,
    )
    try:
        yield connection
    finally:
        connection.terminate()


@pytest.fixture(name="environ")
def _environ(services: Services, empty_database: str) -> dict[str, str]:
    return services.environ(empty_database)


@pytest.fixture(name="role")
def _role(services: Services, environ: dict[str, str], worker_id: str) -> Iterator[str]:
    """A role that may have five connections, and what leads to the database as that one."""
    name, password = f"doctor_{worker_id}", secrets.token_urlsafe(16)
    psql(services, "postgres", f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 5 PASSWORD '{password}'")
    psql(services, environ["POSTGRES_DB"], f"GRANT SELECT ON alembic_version, alembic_history TO {name}")
    environ |= {"POSTGRES_USER": name, "POSTGRES_PASSWORD": password}
    yield name
    psql(services, environ["POSTGRES_DB"], f"DROP OWNED BY {name}")
    psql(services, "postgres", f"DROP ROLE {name}")


class TestDatabase:
    def test_is_well(self, environ: dict[str, str], role: str) -> None:
        """Nothing is said of a migrated database with room, nor is anything asked that a plain role may not know."""
        assert found(environ) == []

    @pytest.mark.parametrize(
        ("count", "says"),
        [
            (4, "has 5 of 5 connections: lower DATABASE_POOL_SIZE"),  # the fifth is the one that asks
            (5, "cannot connect to the database: too many connections for role"),
        ],
    )
    async def test_is_nearly_out_of_connections(
        self, services: Services, environ: dict[str, str], role: str, count: int, says: str
    ) -> None:
        """While there is time to act, and when there is none."""
        held = [connected(services, environ["POSTGRES_DB"], user=role, password=environ["POSTGRES_PASSWORD"])
                for _ in range(count)]  # fmt: skip
        for one in held:
            await one.__aenter__()
        try:
            [line] = await asyncio.to_thread(found, environ)
        finally:
            for one in held:
                await one.__aexit__(None, None, None)
        assert says in line
        assert "or the replicas, or raise" in line

    def test_takes_no_writes(self, services: Services, environ: dict[str, str]) -> None:
        """A read-only database is named, with what makes it writable again."""
        name = environ["POSTGRES_DB"]
        psql(services, "postgres", f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            [line] = found(environ)
        finally:
            psql(services, "postgres", f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert f"`ALTER DATABASE {name} RESET default_transaction_read_only`" in line

    def test_lacks_a_migration(self, environ: dict[str, str]) -> None:
        """Of the release that serves; a newer database is fine."""
        assert found(environ, "9999") == [
            f"the database is at revision {NEWEST}, and the release that serves needs 9999: `{DEPLOY}`"
        ]
        assert found(environ, NEWEST) == []
        assert found(environ, None) == []

    def test_says_another_revision_than_it_applied(self, services: Services, environ: dict[str, str]) -> None:
        """Whatever that revision sorts after."""
        set_revision = "UPDATE alembic_version SET version_num = '{}'"
        psql(services, environ["POSTGRES_DB"], set_revision.format("ae1027a6acf"))
        try:
            [line] = found(environ)
        finally:
            psql(services, environ["POSTGRES_DB"], set_revision.format(NEWEST))
        assert line.startswith(f"alembic_version says ae1027a6acf, and the migration applied last is {NEWEST}: ")

    def test_was_never_migrated(self, services: Services, environ: dict[str, str]) -> None:
        """An empty database that somebody restored wrongly."""
        [line] = found({**environ, "POSTGRES_DB": "postgres"})
        assert line.startswith("the database is not migrated")

    def test_has_an_index_whose_building_failed(self, services: Services, environ: dict[str, str]) -> None:
        """PostgreSQL leaves it behind, and it costs each write."""
        database = environ["POSTGRES_DB"]
        psql(services, database, "CREATE TABLE twice AS SELECT 1 AS number FROM generate_series(1, 2)")
        try:
            with pytest.raises(asyncpg.UniqueViolationError):
                psql(services, database, "CREATE UNIQUE INDEX CONCURRENTLY once ON twice (number)")
            [line] = found(environ)
        finally:
            psql(services, database, "DROP TABLE twice")
        assert line.startswith("index once is not valid")
        assert "`DROP INDEX CONCURRENTLY once`" in line

    async def test_has_a_transaction_that_is_left_open(self, services: Services, environ: dict[str, str]) -> None:
        """And whoever waits behind its lock."""
        database = environ["POSTGRES_DB"]
        async with connected(services, database) as holder, connected(services, database) as waiter:
            await holder.execute("SET application_name = 'a psql'")
            await holder.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
            waiting = asyncio.ensure_future(waiter.execute("SELECT pg_advisory_lock(1)"))
            await asyncio.sleep(0.5)
            lines = await asyncio.to_thread(found, environ, LONG_SECONDS=0.4, WAIT_SECONDS=0.1)
            waiting.cancel()
            pid = holder.get_server_pid()
        left = [line for line in lines if f"pg_terminate_backend({pid})" in line]
        assert len(left) == 1
        assert re.match(r"a transaction of `a psql` has been open for \d s \(idle in transaction\)", left[0])
        assert re.match(rf"1 sessions wait for a lock, the longest for \d s, behind process {pid}: ", lines[-1]), lines

    def test_keeps_its_log_for_nobody(self, services: Services, environ: dict[str, str], worker_id: str) -> None:
        """A slot without a reader fills the disk."""
        name = f"gone_{worker_id}"
        try:
            psql(services, "postgres", f"SELECT pg_create_physical_replication_slot('{name}', true)")
        except (asyncpg.ObjectNotInPrerequisiteStateError, asyncpg.PostgresError) as error:
            pytest.skip(f"the embedded servers of tests have no replication: {error}")
        try:
            lines = [line for line in store_findings(probe(environ, "database"), None, DEPLOY) if name in line]
        finally:
            psql(services, "postgres", f"SELECT pg_drop_replication_slot('{name}')")
        assert len(lines) == 1
        assert "is inactive, and keeps" in lines[0]
        assert f"`SELECT pg_drop_replication_slot('{name}')`" in lines[0]

    def test_does_not_answer(self, environ: dict[str, str]) -> None:
        """Nobody listens, or the password is another one."""
        [line] = found({**environ, "POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"})
        assert line.startswith("cannot connect to the database: ")
        assert line.endswith("check that it is up and that POSTGRES_* point to it")
        [line] = found({**environ, "POSTGRES_PASSWORD": "a-password-of-nobody"})
        assert line.endswith("set the password of the role POSTGRES_USER to that of POSTGRES_PASSWORD")

    def test_outgrows_its_volume(self, environ: dict[str, str]) -> None:
        """Where the engine knows how large that is."""
        seen = probe(environ, "database")
        seen["database"]["capacity"] = seen["database"]["bytes"] * 1.2
        [line] = store_findings(seen, None, DEPLOY)
        assert "make the claim larger" in line

    @pytest.mark.parametrize(
        ("slot", "says"),
        [
            ({"active": True, "wal": "reserved", "bytes": 2**20}, None),
            ({"active": True, "wal": "extended", "bytes": 3 * 2**30}, "lags by 3.0 GB"),
            ({"active": False, "wal": "lost", "bytes": None}, "has lost its place"),
        ],
    )
    def test_has_a_replica_that_lags(self, environ: dict[str, str], slot: dict[str, Any], says: str | None) -> None:
        """By its slot, which everybody may see."""
        seen = probe(environ, "database")
        seen["database"]["slots"] = [{"name": "standby", **slot}]
        lines = store_findings(seen, None, DEPLOY)
        assert [(says or "nothing") in line for line in lines] == ([True] if says else []), lines


class TestRedis:
    def test_is_well_when_it_throws_away_what_is_old(self) -> None:
        """A full cache is one that works."""
        assert store_findings({"redis": {**SOUND, "used_memory": 100}}, None, DEPLOY) == []

    def test_is_nearly_full_or_out_of_connections(self) -> None:
        """A real one, that refuses writes when it is full."""
        with throwaway_valkey() as server, Redis(unix_socket_path=server.socket) as client:
            environ = {"REDIS_HOST": server.socket}
            assert store_findings(probe(environ, "redis"), None, DEPLOY) == []
            client.config_set("maxmemory", int(client.info()["used_memory"] * 1.1))
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxclients", "2")
            full, crowded = store_findings(probe(environ, "redis"), None, DEPLOY)
        assert full.endswith("set allkeys-lru, or raise maxmemory")
        assert "has 2 of 2 connections" in crowded

    def test_cannot_write(self) -> None:
        """Its disk is full."""
        [line] = store_findings({"redis": {**SOUND, "aof_last_write_status": "err"}}, None, DEPLOY)
        assert line == "Redis cannot write its file: is its disk full?"

    def test_does_not_answer(self) -> None:
        """The service goes on without, slower."""
        [line] = store_findings(probe({"REDIS_HOST": "127.0.0.1", "REDIS_PORT": "1"}, "redis"), None, DEPLOY)
        assert line.startswith("Redis does not answer: ")


def test_a_probe_that_broke_is_no_answer() -> None:
    """What it said last is in the line."""
    with pytest.raises(SlipwayError, match="POSTGRES_PORT: must be a number"):
        read_stores("Traceback\nbackend.settings.SettingsError: POSTGRES_PORT: must be a number\n")
