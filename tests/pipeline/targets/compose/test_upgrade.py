"""A new major of PostgreSQL on Compose: what is refused before anything is made, and which server is put back when."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from pipeline.engines.embedded import PostgresServer, find_engines, throwaway_postgres
from pipeline.errors import SlipwayError, UsageError
from pipeline.targets.common.rights import PSQL
from pipeline.targets.common.upgrade import PLAIN
from pipeline.targets.compose import upgrade as module
from pipeline.targets.compose.backups import ComposeBackups
from pipeline.targets.compose.surroundings import Surroundings
from pipeline.targets.compose.upgrade import ComposeUpgrade, copy_problems, missing_roles

HOME = "/var/lib/postgresql"
OLD = {"Type": "volume", "Name": "shop_postgres", "Destination": f"{HOME}/data", "RW": True}
SAYS = {"server": "17.6 (Debian 17.6-1)", "data": f"{HOME}/data", "bytes": 1000, "others": ["yesterday"]}


class Engine:
    """Docker with a PostgreSQL 17 that runs: `volumes` that there are, and what is in those that would be mounted."""

    def __init__(self) -> None:
        self.volumes = ["shop_postgres"]
        self.server, self.data = "18.4", list[str]()
        self.free_kb, self.says = 10_000, dict(SAYS)
        self.done = list[tuple[str, ...]]()
        self.sql = list[str]()

    def ask(self, *words: str, given: str = "", **_: Any) -> str:
        if words[:2] == ("volume", "ls"):
            return "\n".join(self.volumes)
        if "df" in words:
            return f"Filesystem 1024-blocks Used Available Capacity Mounted\n/dev/sda 1 1 {self.free_kb} 1% /"
        if words[0] == "run":
            found = "\n".join(f"data {one}" for one in self.data)
            return f"server postgres (PostgreSQL) {self.server}\npromised 18\npgdata {HOME}/18/docker\n{found}\n"
        self.sql.append(given)
        return json.dumps(self.says)

    def do(self, *words: str, **_: Any) -> str:
        self.done.append(words)
        return ""

    def image(self, name: str) -> dict[str, Any]:
        return {"Id": f"id of {name}"}

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        return [{"Mounts": [OLD]}] if names == ("old",) else []


def config(volume: str, image: str = "postgres:18-trixie", target: str = HOME) -> dict[str, Any]:
    """What `docker compose config` says."""
    mount = {"type": "volume", "source": volume, "target": target}
    return {
        "name": "shop",
        "services": {"postgres": {"image": image, "volumes": [mount]}},
        "volumes": {volume: {"name": f"shop_{volume}"}},
    }


@pytest.fixture(name="engine")
def _engine() -> Engine:
    return Engine()


def upgrade(engine: Engine, folder: Path, volume: str = "postgres-18", **backups: str) -> ComposeUpgrade:
    running = SimpleNamespace(running=True, ident="old", image="postgres:17-trixie")
    stack = SimpleNamespace(name="shop", config=lambda _: config(volume), containers=lambda _: [running])
    variables = SimpleNamespace(
        managed=SimpleNamespace(database=False), environment=lambda _: {}, database="shop", backups=backups
    )
    proved = folder / "proved.json"
    if not proved.exists():
        proved.write_text(json.dumps({"config": config("postgres", "postgres:17-trixie", f"{HOME}/data")}))
    around = Surroundings(cast("Any", SimpleNamespace(stack=stack)), proved)
    site = SimpleNamespace(
        docker=engine, stack=stack, variables=variables, surroundings=around, home=folder,
        env=SimpleNamespace(name="compose"),
    )  # fmt: skip
    return ComposeUpgrade(cast("Any", site), ComposeBackups(cast("Any", site)))


class TestPlan:
    def test_says_what_goes_where(self, engine: Engine, tmp_path: Path) -> None:
        """Both versions, what stays behind, and how the old data is removed some day."""
        plan = upgrade(engine, tmp_path).plan()
        assert plan
        assert (plan.old, plan.new, plan.bytes, plan.free) == ("17.6", "18", 1000, 10_000 * 1024)
        assert (plan.place, plan.before) == ("shop_postgres-18", "volume shop_postgres")
        assert (plan.removal, plan.others) == ("docker volume rm shop_postgres", ("yesterday",))
        assert engine.done == []

    def test_has_nothing_to_do_for_the_same_major(self, engine: Engine, tmp_path: Path) -> None:
        """Another minor is a deploy's."""
        engine.server = "17.9"
        assert upgrade(engine, tmp_path).plan() is None

    def test_takes_an_empty_volume(self, engine: Engine, tmp_path: Path) -> None:
        """Compose may have made it."""
        engine.volumes.append("shop_postgres-18")
        assert upgrade(engine, tmp_path).plan()

    @pytest.mark.parametrize(
        ("changed", "volume", "line"),
        [
            ({"server": "16.1"}, "postgres-18", "is PostgreSQL 16, and 17 serves"),
            (
                {},
                "postgres",
                "volume shop_postgres holds the data that serves: in docker-compose.yml, mount `postgres-18:",
            ),
            (
                {"data": [f"18 {HOME}/18/docker/PG_VERSION"], "volumes": ["shop_postgres", "shop_postgres-18"]},
                "postgres-18",
                "volume shop_postgres-18 has a database already (PostgreSQL 18): `docker volume rm shop_postgres-18`",
            ),
            (
                {"data": [f"18 {HOME}/old/docker/PG_VERSION"], "volumes": ["shop_postgres", "shop_postgres-18"]},
                "postgres-18",
                "has a database already",
            ),
            ({"free_kb": 1}, "postgres-18", "has 1.02 kB free, and a copy of 1 kB needs about 1.5 kB: make room"),
        ],
        ids=["an older major", "the same volume", "data there", "data elsewhere there", "no room"],
    )
    def test_refuses(self, engine: Engine, tmp_path: Path, changed: dict[str, Any], volume: str, line: str) -> None:
        """With the fix, before anything is made."""
        for name, value in changed.items():
            setattr(engine, name, value)
        with pytest.raises(UsageError) as raised:
            upgrade(engine, tmp_path, volume).plan()
        assert line in raised.value.problems[0]
        assert engine.done == []

    def test_needs_the_key_of_encrypted_backups(self, engine: Engine, tmp_path: Path) -> None:
        """It is away from the host until then."""
        with pytest.raises(UsageError, match="BACKUP_IDENTITY: is missing"):
            upgrade(engine, tmp_path, BACKUP_RECIPIENTS="age1x").plan()
        assert upgrade(engine, tmp_path, BACKUP_RECIPIENTS="age1x", BACKUP_IDENTITY="AGE").plan()

    def test_needs_a_release_that_was_proved(self, engine: Engine, tmp_path: Path) -> None:
        """Otherwise nothing could be put back."""
        (tmp_path / "proved.json").write_text("{}")
        with pytest.raises(UsageError, match="nothing was proved on compose yet"):
            upgrade(engine, tmp_path).plan()


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, as a setting of the server is changed."""
    with throwaway_postgres() as server:
        yield server


class Real(ComposeUpgrade):
    """Runs `psql` here, not in a container."""

    server: PostgresServer

    def _psql(self, ident: str, database: str, sql: str) -> str:
        place = [f"--host={self.server.host}", "--username=postgres", f"--dbname={database}"]
        command = [str(find_engines().postgres / PSQL[0]), *PSQL[1:], *place, *PLAIN]
        environment = {**os.environ, "PGPASSWORD": self.server.password}
        return subprocess.run(command, input=sql, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(name="real")
def _real(server: PostgresServer, engine: Engine, tmp_path: Path) -> Real:
    one = upgrade(engine, tmp_path)
    real = Real(one.site, one.backups)
    real.server = server
    return real


async def session(server: PostgresServer) -> asyncpg.Connection[Any]:
    return await asyncpg.connect(
        host=server.host, port=server.port, user=server.user, password=server.password, database="postgres"
    )


class TestClose:
    async def test_lets_what_has_begun_commit_and_nothing_begin(self, real: Real) -> None:
        """In sessions that are there already, too; and they write again once it is undone."""
        begun, other = await session(real.server), await session(real.server)
        await other.execute("CREATE TABLE IF NOT EXISTS notes (text text); TRUNCATE notes")
        transaction = begun.transaction()
        await transaction.start()
        await begun.execute("INSERT INTO notes VALUES ('begun')")
        closing = asyncio.create_task(asyncio.to_thread(real.close))
        await asyncio.sleep(1.5)
        assert not closing.done()
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await other.execute("INSERT INTO notes VALUES ('late')")
        await begun.execute("INSERT INTO notes VALUES ('begun, too')")
        await transaction.commit()
        await closing
        assert await other.fetchval("SELECT count(*) FROM notes") == 2
        await asyncio.to_thread(real.abandon, "")
        await asyncio.sleep(0.5)
        await other.execute("INSERT INTO notes VALUES ('after')")
        await begun.close()
        await other.close()

    async def test_ends_what_does_not_end(self, real: Real, monkeypatch: pytest.MonkeyPatch) -> None:
        """The new server would lack it; whoever it was has no acknowledgement."""
        monkeypatch.setattr(module, "COMMIT_SECONDS", 0.5)
        hung = await session(real.server)
        await hung.execute("BEGIN; CREATE TABLE hung (id int)")
        await asyncio.to_thread(real.close)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            await hung.execute("COMMIT")
        await asyncio.to_thread(real.abandon, "")
        await asyncio.sleep(0.5)
        now = await session(real.server)
        assert await now.fetchval("SELECT to_regclass('hung')") is None
        await now.close()


class TestAbandon:
    def test_lets_write_and_removes_the_new_volume(self, engine: Engine, tmp_path: Path) -> None:
        """And never another one."""
        engine.volumes.append("shop_postgres-18")
        upgrade(engine, tmp_path).abandon("shop_postgres-18")
        assert engine.sql == ["ALTER SYSTEM RESET default_transaction_read_only;\nSELECT pg_reload_conf();"]
        assert engine.done == [("volume", "rm", "shop_postgres-18")]

    def test_starts_the_old_server_where_everything_was_stopped_since(self, engine: Engine, tmp_path: Path) -> None:
        """`nox -s down` after a kill: its own definition says what to start, not docker-compose.yml."""
        one = upgrade(engine, tmp_path)
        stack, [running] = cast("Any", one.site.stack), one.site.stack.containers("postgres")
        started = list[dict[str, Any]]()
        stack.containers = lambda _=None: [running] if started else []
        cast("Any", one.site.surroundings).bring_back = lambda: started.append(one.site.surroundings.proved_config())
        one.abandon("shop_postgres-18")
        assert [each["services"]["postgres"]["image"] for each in started] == ["postgres:17-trixie"]
        assert len(engine.sql) == 1

    def test_removes_nothing_where_nothing_was_made(self, engine: Engine, tmp_path: Path) -> None:
        """The story had not begun, or the volume was not made yet."""
        for place in ("", "shop_postgres-18"):
            upgrade(engine, tmp_path).abandon(place)
        assert engine.done == []


class Stack:
    """Compose: one container of PostgreSQL, which `up` and `apply` exchange."""

    name = "shop"

    def __init__(self) -> None:
        self.now, self.fails = config("postgres", "postgres:17-trixie"), False
        self.runs = self.now
        self.docker = SimpleNamespace(image=lambda name: {"Id": f"id of {name}"}, inspect=lambda *_: [])

    def config(self, _: Any) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(json.dumps(self.now)))

    def definitions(self, _: Any) -> dict[str, str]:
        return {"postgres": self._hash(self.now)}

    def _hash(self, one: dict[str, Any]) -> str:
        return str(one["services"]["postgres"]["volumes"])

    def containers(self, _: Any = None) -> list[Any]:
        image = f"id of {self.runs['services']['postgres']['image']}"
        labels = {"com.docker.compose.config-hash": self._hash(self.runs)}
        return [SimpleNamespace(service="postgres", ready=True, running=True, image=image, labels=labels, mounts={})]

    def do(self, *_: Any, **__: Any) -> str:
        if self.fails:
            raise SlipwayError("no engine answers")
        self.runs = self.now
        return ""

    def apply(self, wanted: dict[str, Any], *_: str) -> None:
        self.runs = wanted

    @property
    def volume(self) -> str:
        return str(self.runs["services"]["postgres"]["volumes"][0]["source"])


@pytest.fixture(name="around")
def _around(tmp_path: Path) -> Surroundings:
    """The old server was proved and runs; docker-compose.yml names the new one by now."""
    stack = Stack()
    variables = SimpleNamespace(stack=stack, environment=lambda _: {}, surroundings=["postgres"])
    around = Surroundings(cast("Any", variables), tmp_path / "proved.json")
    around.keep()
    stack.now = config("postgres-18")
    return around


class TestExchange:
    def test_is_for_good(self, around: Surroundings, tmp_path: Path) -> None:
        """A later deploy that fails puts the new one back, never the old data."""
        stack = cast("Any", around.stack)
        around.exchange("postgres", tmp_path / "saved.json")
        assert stack.volume == "postgres-18"
        stack.runs = config("something")
        around.bring_back()
        assert stack.volume == "postgres-18"

    def test_is_for_good_where_it_is_killed_before_the_start(self, around: Surroundings, tmp_path: Path) -> None:
        """The old server was read-only by then: what a heal brings back is the new one."""
        stack = cast("Any", around.stack)
        stack.fails = True
        with pytest.raises(SlipwayError):
            around.exchange("postgres", tmp_path / "saved.json")
        assert stack.volume == "postgres"
        around.bring_back()
        assert stack.volume == "postgres-18"

    def test_can_be_undone(self, around: Surroundings, tmp_path: Path) -> None:
        """However far it came."""
        stack, saved = cast("Any", around.stack), tmp_path / "saved.json"
        for stack.fails in (True, False):
            with suppress(SlipwayError):
                around.exchange("postgres", saved)
            around.exchange_back(saved)
            assert stack.volume == "postgres"
            assert around.proved_config()["volumes"].keys() == {"postgres"}


class TestCopyProblems:
    def test_refuses_to_serve_from_a_copy(self, engine: Engine, tmp_path: Path) -> None:
        """What was switched back from has all but the newest writes, and looks like the data."""
        one = upgrade(engine, tmp_path)
        assert copy_problems(one.site) == []
        (tmp_path / "copy-of-data").write_text("shop_postgres-18")
        assert copy_problems(one.site) == []  # it is gone
        engine.volumes.append("shop_postgres-18")
        [line] = copy_problems(one.site)
        assert "shop_postgres-18 has a copy of the data, and what was written since is not in it" in line
        assert "`docker volume rm shop_postgres-18`, then `nox -s upgrade-database -- compose`" in line

    def test_lets_serve_what_was_switched_to(self, engine: Engine, tmp_path: Path) -> None:
        """And the old volume, where docker-compose.yml mounts that again."""
        engine.volumes.append("shop_postgres-18")
        (tmp_path / "copy-of-data").write_text("shop_postgres-18")
        assert copy_problems(upgrade(engine, tmp_path, "postgres").site) == []
        (tmp_path / "proved.json").write_text(json.dumps({"config": config("postgres-18")}))
        assert copy_problems(upgrade(engine, tmp_path).site) == []


class TestMissingRoles:
    def test_makes_those_that_are_not_there_and_sets_up_all(self) -> None:
        """Passwords and memberships are copied for each."""
        dumped = (
            "SET client_encoding = 'UTF8';\n"
            "CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\n"
            'CREATE ROLE "shop-app";\nALTER ROLE "shop-app" WITH NOLOGIN;\n'
            'CREATE ROLE "a ""b""; c";\nGRANT "shop-app" TO postgres;\n'
        )
        said = missing_roles(dumped, ["postgres", 'a "b"; c'])
        assert "CREATE ROLE postgres" not in said
        assert 'CREATE ROLE "a' not in said
        assert [line for line in said.splitlines() if line.startswith("CREATE")] == ['CREATE ROLE "shop-app";']
        assert len(said.splitlines()) == len(dumped.splitlines()) - 2
