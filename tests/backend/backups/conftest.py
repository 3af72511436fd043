"""A database of an owner, with rows, and a folder for its backups."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest
from pyrage import x25519

from backend.backups.dump import back_up
from backend.backups.manifest import Manifest
from backend.backups.server import Server
from backend.backups.settings import BackupSettings, load_backup_settings
from backend.backups.verify import Checked, check
from backend.migrations.plan import plan
from backend.migrations.runner import Wanted, upgrade
from backend.settings import Settings, load_settings
from pipeline.engines.embedded import find_engines
from tests.services import Services, psql

PASSWORD = "a-password-of-the-owner"
REVISIONS = [step.revision for step in plan(None, None)]
ROWS = 500 + 20 + 1 + 1  # of CONTENT
ALL_ROWS = ROWS + 1 + len(REVISIONS)  # with those that say which migrations there were
# A table of each kind that a dump treats for itself, and a large object.
CONTENT = """
    CREATE SCHEMA "odd name";
    CREATE TABLE "odd name"."Names" (id serial PRIMARY KEY, "the text" text);
    INSERT INTO "odd name"."Names" ("the text") SELECT repeat('x', n % 50) FROM generate_series(1, 500) AS n;
    CREATE TABLE parts (id int, kind int) PARTITION BY LIST (kind);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    INSERT INTO parts SELECT n, 1 FROM generate_series(1, 20) AS n;
    INSERT INTO accounts (id, name, role, password_hash) VALUES (gen_random_uuid(), 'someone', 'viewer', 'none');
    INSERT INTO account_sessions (id, account_id, family_hash, seed, current_hash, user_agent, expires_at)
        SELECT gen_random_uuid(), id, '\\x01', '\\x02', '\\x03', 'a browser', now() + interval '1 day' FROM accounts;
    SELECT lo_from_bytea(4711, 'a large object');
"""


@dataclass
class Place:
    """The database, its server and the folder. `said`: the lines that were said."""

    services: Services
    database: str
    owner: str
    folder: Path
    environ: dict[str, str]
    identity: x25519.Identity
    said: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        """Keep a line."""
        self.said.append(line)

    @property
    def settings(self) -> Settings:
        """The settings of the service."""
        return load_settings(self.environ, sections=["database", "redis"], secrets_dir=self.folder)

    def own(self, **changed: str) -> BackupSettings:
        """The settings of the backups, with some of them `changed`."""
        return load_backup_settings({**self.environ, **changed}, secrets_dir=self.folder)

    def server(self, **changed: str) -> Server:
        """The server of those."""
        return Server(self.settings, self.own(**changed))

    def encrypted(self) -> dict[str, str]:
        """What encrypts, and decrypts."""
        return {"BACKUP_RECIPIENTS": str(self.identity.to_public()), "BACKUP_IDENTITY": str(self.identity)}

    async def back_up(
        self, before: Manifest | None = None, *, given: Mapping[str, str] = MappingProxyType({})
    ) -> Manifest:
        """Make a backup, with the settings that are `given` besides."""
        return await back_up(self.settings, self.own(**given), before, self.say)

    async def check(
        self,
        name: str,
        *,
        project: str | None = None,
        needs_key: bool = True,
        given: Mapping[str, str] = MappingProxyType({}),
    ) -> Checked:
        """Check a backup, with the settings that are `given` besides."""
        own = self.own(**given)
        return await check(self.settings, own, self.folder / name, project=project, needs_key=needs_key, say=self.say)

    async def ask(self, query: str, database: str | None = None) -> Any:
        """Ask one value, as the superuser."""
        connection = await asyncpg.connect(
            host=self.services.postgres_host, port=self.services.postgres_port, user=self.services.postgres_user,
            password=self.services.postgres_password, database=database or self.database,
        )  # fmt: skip
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    def run(self, statement: str, database: str | None = None) -> None:
        """Run one statement, as the superuser."""
        psql(self.services, database or self.database, statement)

    async def databases(self) -> set[str]:
        """The databases of this place."""
        found = await self.ask(
            f"SELECT array_agg(datname) FROM pg_database WHERE datname LIKE '{self.database}%'", "postgres"
        )
        return {*(found or ())}

    async def checksum(self, database: str) -> str:
        """A checksum of all rows of all tables."""
        tables = await self.ask(
            "SELECT array_agg(format('%I.%I', schemaname, tablename) ORDER BY 1) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
            database,
        )
        union = " UNION ALL ".join(
            f"SELECT '{name}' || row_to_json(one)::text AS line FROM {name} AS one" for name in tables
        )
        found: str = await self.ask(
            f"SELECT md5(string_agg(line, ',' ORDER BY line)) FROM ({union}) AS lines", database
        )
        return found


@pytest.fixture(name="turn")
def _turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until no other test restores or swaps: a server lets only one do so, and all workers share it."""
    with (tmp_path_factory.getbasetemp().parent / "restores.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session", name="owned_template")
def _owned_template(services: Services, worker_id: str) -> str:
    """A migrated database with rows, which an owner has that is no superuser."""
    owner = f"keep-{worker_id}"
    template = f"{owner}-template"
    psql(services, "postgres", f"CREATE ROLE \"{owner}\" LOGIN PASSWORD '{PASSWORD}'")
    psql(services, "postgres", f'CREATE DATABASE "{template}" OWNER "{owner}"')
    environ = {**services.environ(template), "POSTGRES_USER": owner, "POSTGRES_PASSWORD": PASSWORD}
    settings = load_settings(environ, sections=["database"])
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(upgrade(settings, Wanted(), lambda _: None))).result()
    owned = CONTENT.replace("SELECT lo_from_bytea", f'RESET ROLE; SET ROLE "{owner}"; SELECT lo_from_bytea')
    psql(services, template, f'SET ROLE "{owner}"; {owned}')
    return template


@pytest.fixture(name="place")
def _place(
    services: Services, owned_template: str, worker_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    owner = f"keep-{worker_id}"
    database = f"{owner}-data"
    psql(services, "postgres", f'CREATE DATABASE "{database}" TEMPLATE "{owned_template}" OWNER "{owner}"')
    folder = tmp_path / "backups"
    programs = [str(Path(sys.executable).parent), str(find_engines().postgres), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(programs))
    environ = {
        **services.environ(database),
        "POSTGRES_USER": owner,
        "POSTGRES_PASSWORD": PASSWORD,
        "POSTGRES_SUPERUSER": services.postgres_user,
        "POSTGRES_SUPERUSER_PASSWORD": services.postgres_password,
        "BACKUP_FOLDER": str(folder),
        "PROJECT_NAME": "keeper",
        "RELEASE": "r1",
    }
    yield Place(services, database, owner, folder, environ, x25519.Identity.generate())
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(_drop_all(services, database))).result()


async def _drop_all(services: Services, prefix: str) -> None:
    connection = await asyncpg.connect(
        host=services.postgres_host, port=services.postgres_port, user=services.postgres_user,
        password=services.postgres_password, database="postgres",
    )  # fmt: skip
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", f"{prefix}%"):
            await connection.execute(f'DROP DATABASE "{row["datname"]}" WITH (FORCE)')
    finally:
        await connection.close()
