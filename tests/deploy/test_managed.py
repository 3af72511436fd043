"""A PostgreSQL and a Redis that others manage: the service, its migrations and its proof use them, and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.backend.poolers import needs_statements, pooler
from tests.backend.servers import PASSWORD, Postgres, valkey
from tests.conftest import AddRow
from tests.deploy.checkout import Checkout
from tests.deploy.machine import roster
from tests.deploy.rotating import rotates_what_others_manage
from tests.notes import NOTES
from tests.services import psql

pytestmark = pytest.mark.e2e

SERVES, MIGRATES = "app-that-serves", "app-that-migrates"  # of which only the latter may change tables
OWN = ("postgres", "valkey")


@dataclass(frozen=True)
class Managed:
    """The servers, and the settings that name them."""

    server: Postgres
    redis: Path

    @property
    def environ(self) -> dict[str, str]:
        """The URLs, as `.env` has them."""
        place = f"@/shop?host={self.server.folder}&connect_timeout=10"
        return {
            "DATABASE_URL": f"postgres://{SERVES}:{PASSWORD}-serves{place}",
            "MIGRATION_DATABASE_URL": f"postgresql://{MIGRATES}:{PASSWORD}-migrates{place}",
            "REDIS_URL": f"unix://{self.redis}?db=3",
        }

    def admit(self, login: str) -> str:
        """Let the service in as `login`, beside whom there is; return the URL."""
        password = f"{PASSWORD}-{login}"
        psql(self.server.services, "postgres", f"CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE \"{SERVES}\"")
        return self.environ["DATABASE_URL"].replace(f"{SERVES}:{PASSWORD}-serves", f"{login}:{password}")

    def dismiss(self) -> None:
        """Let the first login in no more; nobody may be there as that any longer."""
        there = f"SELECT FROM pg_stat_activity WHERE usename = '{SERVES}'"
        psql(self.server.services, "postgres", f"DO $$ BEGIN ASSERT NOT EXISTS ({there}); END $$")
        psql(self.server.services, "postgres", f'ALTER ROLE "{SERVES}" NOLOGIN')

    def rows(self, where: str) -> None:
        """Check that the table of notes has exactly one row `where`."""
        count = f"(SELECT count(*) FROM testing_notes WHERE {where}) = 1"
        psql(self.server.services, "shop", f"DO $$ BEGIN ASSERT {count}; END $$")


@pytest.fixture(scope="module", name="managed")
def _managed() -> Iterator[Managed]:
    folder = Path(tempfile.mkdtemp(prefix="slipway-managed-"))
    folder.chmod(0o755)  # PostgreSQL's user has to pass through
    (folder / "postgres").mkdir()
    (folder / "redis").mkdir()
    server = Postgres(folder / "postgres")
    server.start()
    for statement in (
        f"CREATE ROLE \"{SERVES}\" LOGIN PASSWORD '{PASSWORD}-serves'",
        f"CREATE ROLE \"{MIGRATES}\" LOGIN PASSWORD '{PASSWORD}-migrates'",
    ):
        psql(server.services, "postgres", statement)
    renew(server)
    try:
        with valkey(folder / "redis") as cache:
            yield Managed(server, cache.socket)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def renew(server: Postgres) -> None:
    """Make the database anew, with what the two roles may do in it."""
    psql(server.services, "postgres", "DROP DATABASE IF EXISTS shop")
    psql(server.services, "postgres", f'CREATE DATABASE shop OWNER "{MIGRATES}"')
    psql(server.services, "postgres", f'ALTER ROLE "{SERVES}" LOGIN')
    grants = f'ALTER DEFAULT PRIVILEGES FOR ROLE "{MIGRATES}" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO'
    psql(server.services, "shop", f'{grants} "{SERVES}"')


def test_are_used_and_nothing_runs_in_their_place(managed: Managed, checkout: Checkout) -> None:
    """Deployed, changed, brought back and taken down: the data is where the URLs say, and stays there."""
    checkout.set_env(**managed.environ)
    first = checkout.proved()
    assert f"the database is shop on {managed.server.folder} (DATABASE_URL), which others manage" in first.stderr
    assert PASSWORD not in first.stderr + first.stdout
    assert [roster(checkout.processes())[kind] for kind in OWN] == [0, 0]
    row = checkout.write_note("managed")["id"]
    managed.rows("text = 'managed'")
    with redis.Redis(unix_socket_path=str(managed.redis), db=3) as cache:
        assert cache.dbsize() > 0
    assert checkout.run("doctor").code == 0
    assert checkout.status()["problems"] == []
    checkout.change("another line")
    checkout.commit()
    assert checkout.proved().release != first.release
    assert checkout.run("rollback").code == 0
    assert checkout.request("GET", f"{NOTES}/{row}").status_code == 200
    rotates_what_others_manage(checkout, {"DATABASE_URL": managed.admit("second")}, managed.dismiss)
    assert checkout.run("down", "--volumes").code == 0
    managed.rows("text = 'managed'")


@needs_statements
def test_ten_deploys_through_a_pooler(managed: Managed, checkout: Checkout, tmp_path: Path, add_row: AddRow) -> None:
    """In transaction mode: sessions are shared, prepared statements kept apart, and no request fails."""
    settings = {"pool_mode": "transaction", "max_prepared_statements": "100", "default_pool_size": "10"}
    renew(managed.server)
    with pooler(
        managed.server, tmp_path, database="shop", user=SERVES, password=f"{PASSWORD}-serves", **settings
    ) as url:
        checkout.set_env(**{**managed.environ, "DATABASE_URL": url})
        sent = checkout.proved().traffic["sent"]
        for number in range(9):
            checkout.change(f"update {number}")
            sent += checkout.proved().traffic["sent"]
        assert checkout.run("down", "--volumes").code == 0
    add_row("ten deploys through PgBouncer in transaction mode", f"{sent} requests, 0 failed")


def test_take_the_place_of_what_ran_here(managed: Managed, checkout: Checkout) -> None:
    """Redis under traffic; a database once nothing serves from the other, as its rows are not there. Data is kept."""
    renew(managed.server)
    checkout.proved()
    checkout.write_note("before")
    checkout.set_env(REDIS_URL=managed.environ["REDIS_URL"])
    checkout.proved()
    assert [roster(checkout.processes())[kind] for kind in OWN] == [1, 0]
    checkout.set_env(DATABASE_URL=managed.environ["MIGRATION_DATABASE_URL"])
    refused = checkout.deploy()
    assert refused.code == 1
    assert any("was never migrated, and releases were proved here" in line for line in refused.problems())
    assert checkout.run("down").code == 0
    checkout.proved("--empty-database")
    assert [roster(checkout.processes())[kind] for kind in OWN] == [0, 0]
    assert checkout.run("down").code == 0
    checkout.set_env(DATABASE_URL="")
    checkout.proved()
    assert checkout.sql("SELECT count(*) FROM testing_notes WHERE text = 'before'") == 1
