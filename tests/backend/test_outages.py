"""What callers see while PostgreSQL or Redis is down, hung, or back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
import pytest
import redis
from fastapi import Request, Response

from backend.app import create_app
from backend.cache import BREAK_SECONDS
from backend.logs import configure_logging
from backend.settings import load_settings
from pipeline.proof.generator import StallClock
from tests.backend.servers import Postgres, Valkey, frozen, postgres, valkey
from tests.conftest import TOKEN, asgi_client
from tests.notes import NOTES, SUMMARY
from tests.project import NAME
from tests.services import psql

NEW = {"text": "a"}
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NOBODY = {"REDIS_HOST": "/nowhere/redis.sock"}

pytestmark = pytest.mark.usefixtures("notes")


@pytest.fixture(scope="module", name="own")
def _own() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as server:
        yield server


async def timed(client: httpx2.AsyncClient, path: str) -> tuple[httpx2.Response, float]:
    """The answer, and the seconds it took, without those in which this process could not run."""
    loop = asyncio.get_running_loop()
    clock, began = StallClock(loop), loop.time()
    try:
        answer = await client.get(path)
        return answer, loop.time() - began - clock.stalled(loop.time())
    finally:
        clock.stop()


@asynccontextmanager
async def caller(environ: dict[str, str]) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller with the token, of a service with ENVIRON that runs in this process."""
    settings = load_settings({"SERVICE_TOKEN": TOKEN, **environ})
    configure_logging(settings)
    app = create_app(settings)
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        client.headers.update(AUTHORIZED)
        yield client


async def eventually(client: httpx2.AsyncClient, path: str, status: int) -> None:
    """Ask until the answer has STATUS, for half a minute."""
    async with asyncio.timeout(30):
        while (await client.get(path)).status_code != status:  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.02)


class TestPostgresDown:
    async def test_starts_and_answers_without_it(self) -> None:
        """A service that finds no database starts; it lives, is not ready, and answers 503 with Retry-After."""
        async with caller({"POSTGRES_HOST": "/nowhere", **NOBODY}) as client:
            assert (await client.get("/health")).status_code == 200
            answer = await client.get("/ready")
            checks = answer.json()["checks"]
            states = {name: check["state"] for name, check in checks.items()}
            assert answer.status_code == 503
            assert states == {"database": "failed", "schema": "failed", "redis": "degraded", "draining": "ok"}
            for answer in (await client.get(NOTES), await client.post(NOTES, json=NEW)):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["type"] == "urn:problem-type:database-unavailable"

    async def test_recovers_by_itself_after_a_kill(self, own: Postgres) -> None:
        """While PostgreSQL is killed and started again callers see 200 or 503, nothing else; then all is well."""
        async with caller({**own.environ, **NOBODY, "DATABASE_POOL_SIZE": "4"}) as client:
            assert {(await client.get(NOTES)).status_code for _ in range(8)} == {200}
            seen: set[int] = set()
            over = asyncio.Event()

            async def call() -> None:
                while not over.is_set():
                    seen.add((await client.get(NOTES)).status_code)
                    await asyncio.sleep(0.001)  # a refused connection never lets the loop turn by itself

            callers = [asyncio.create_task(call()) for _ in range(8)]
            await asyncio.to_thread(own.kill)
            await eventually(client, "/ready", 503)
            await asyncio.to_thread(own.start)
            await eventually(client, "/ready", 200)
            await eventually(client, NOTES, 200)
            over.set()
            await asyncio.gather(*callers)
            assert seen <= {200, 503}
            answers = [await client.get(NOTES) for _ in range(12)]
            assert {answer.status_code for answer in answers} == {200}


class TestPostgresHung:
    async def test_ready_answers_within_a_second(self, own: Postgres) -> None:
        """A PostgreSQL that accepts and says nothing: /ready is 503 in under a second, every time, /health 200."""
        async with caller({**own.environ, **NOBODY}) as client:
            assert (await client.get("/ready")).status_code == 200
            with frozen(own.processes()):
                for _ in range(3):
                    answer, seconds = await timed(client, "/ready")
                    assert (answer.status_code, seconds < 1) == (503, True)
                    assert answer.json()["checks"]["database"]["state"] == "timeout"
                assert (await client.get("/health")).status_code == 200
                answer = await client.get("/ready?exclude=database&exclude=schema&exclude=redis")
                assert answer.status_code == 200
            await eventually(client, "/ready", 200)

    async def test_a_full_pool_is_a_503_after_the_timeout(self, own: Postgres) -> None:
        """Who gets no connection within DATABASE_POOL_TIMEOUT is told so, and when to come again."""
        limits = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0", "DATABASE_POOL_TIMEOUT": "0.1"}
        async with caller({**own.environ, **NOBODY, **limits}) as client:
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            async with database.lease() as connection:
                answer = await client.get(NOTES)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert database._metrics.pool_timeouts._value.get() == 1
                assert await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE state IS NOT NULL") == 1
            assert (await client.get(NOTES)).status_code == 200

    async def test_a_busy_moment_is_waited_out(self, own: Postgres) -> None:
        """Two seconds without a free connection, as on a busy host, turn nobody away: that is what the default is."""
        limits = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0"}
        async with caller({**own.environ, **NOBODY, **limits}) as client:
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            async with database.lease():
                answer = asyncio.create_task(client.get(NOTES))
                await asyncio.sleep(2)
                assert not answer.done()
            assert (await answer).status_code == 200

    async def test_never_more_connections_than_the_budget(self, own: Postgres) -> None:
        """Sixty callers at once open as many connections as the pool may have, and all are answered."""
        limits = {"DATABASE_POOL_SIZE": "2", "DATABASE_MAX_OVERFLOW": "1", "DATABASE_POOL_TIMEOUT": "10"}
        async with caller({**own.environ, **NOBODY, **limits}) as client:
            answers = await asyncio.gather(*[client.get(NOTES) for _ in range(60)])
            assert {answer.status_code for answer in answers} == {200}
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            async with database.lease() as connection:
                count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}-backend'"
                assert await connection.fetchval(count) <= 3


class TestReadOnly:
    """A database that takes no writes: a failover has made a standby of it, or its disk is full."""

    @pytest.mark.parametrize("whose", ["ROLE postgres", "DATABASE postgres", "SYSTEM"])
    async def test_writes_are_told_so_until_it_is_over(self, whose: str, own: Postgres) -> None:
        """Writes get a 503 with the cause, reads go on, /ready says it; then the service finds out by itself."""
        limits = {"DATABASE_POOL_SIZE": "4", "DATABASE_POOL_TIMEOUT": "10"}
        async with caller({**own.environ, **NOBODY, **limits}) as client:
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            for _ in range(8):
                await eventually(client, NOTES, 200)
            await _set_read_only(own, whose, "SET default_transaction_read_only = on")
            try:
                async with asyncio.timeout(30):
                    while not _is_read_only(answer := await client.post(NOTES, json=NEW)):  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0)  # a session that is being ended, or has not heard of it yet
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                await eventually(client, NOTES, 200)
                async with asyncio.timeout(30):  # each session is a new one: on a busy machine a check may be late
                    while _of_database(ready := await client.get("/ready"))["state"] == "timeout":  # noqa: ASYNC110
                        await asyncio.sleep(0)  # until the check has an answer, or the time is up
                checks = ready.json()["checks"]
                states = [checks[name]["state"] for name in ("database", "schema")]
                assert (ready.status_code, states) == (503, ["failed", "ok"])
                assert "read-only" in checks["database"]["detail"]
                await eventually(client, "/ready?exclude=writes", 200)  # who asks so goes on sending reads here
            finally:
                await _set_read_only(own, whose, "RESET default_transaction_read_only")
            async with asyncio.timeout(30):
                await database._watching  # nobody writes meanwhile
            answers = [await client.post(NOTES, json=NEW) for _ in range(10)]
            assert not any(map(_is_read_only, answers))
            assert 201 in {answer.status_code for answer in answers}
            await eventually(client, "/ready", 200)

    async def test_a_read_only_transaction_of_our_own_is_a_fault_of_ours(self, own: Postgres) -> None:
        """What the code itself asked for is not the database's state."""
        async with caller({**own.environ, **NOBODY}) as client:
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                async with database.lease() as connection, connection.transaction(readonly=True):
                    await connection.execute("CREATE TABLE nothing ()")


def _of_database(answer: httpx2.Response) -> dict[str, str]:
    """What /ready says of the database."""
    check: dict[str, str] = answer.json()["checks"]["database"]
    return check


def _is_read_only(answer: httpx2.Response) -> bool:
    return bool(answer.json().get("type") == "urn:problem-type:database-read-only")


async def _set_read_only(own: Postgres, whose: str, change: str) -> None:
    """Change it for `whose` sessions, and end those there are, as a failover does."""
    statements = [f"SET transaction_read_only = off; ALTER {whose} {change}"]  # this session may be read-only itself
    if whose == "SYSTEM":
        statements = [f"ALTER SYSTEM {change}", "SELECT pg_reload_conf()"]
    elif change.startswith("SET"):
        ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name"
        statements.append(f"{ending} = '{NAME}-backend'")
    for statement in statements:
        await asyncio.to_thread(psql, own.services, "postgres", statement)


class TestSchemaChange:
    """A query for every column, in a transaction, while a migration adds one."""

    async def test_a_read_is_carried_out_again_and_a_write_is_told_to_come_again(self, own: Postgres) -> None:
        """Outside of a transaction nobody notices; within, a read is answered, a write once with a 503, and no 500."""
        everything = "SELECT * FROM crossed"

        async def within(request: Request) -> Response:
            async with request.app.state.health.database.lease() as connection, connection.transaction():
                return Response(str(len(await connection.fetchrow(everything))))

        async def without(request: Request) -> Response:
            async with request.app.state.health.database.lease() as connection:
                return Response(str(len(await connection.fetchrow(everything))))

        async def change(columns: int) -> None:
            sql = f"ALTER TABLE crossed ADD COLUMN c{columns} integer"
            await asyncio.to_thread(psql, own.services, "postgres", sql)

        await asyncio.to_thread(psql, own.services, "postgres", "CREATE TABLE crossed AS SELECT 1 AS c1")
        async with caller({**own.environ, **NOBODY, "DATABASE_POOL_SIZE": "2"}) as client:
            app = client._transport.app  # type: ignore[attr-defined]
            app.add_api_route("/within", within, methods=["GET"])
            app.add_api_route("/within", within, methods=["POST"])
            app.add_api_route("/without", without, methods=["POST"])
            for path in ("/within", "/without"):
                assert {(await client.post(path)).text for _ in range(6)} == {"1"}
            await change(2)
            assert (await client.post("/without")).text == "2"
            assert [(await client.get("/within")).text for _ in range(6)] == ["2"] * 6
            assert {(await client.post("/within")).text for _ in range(6)} == {"2"}
            await change(3)
            answers = [await client.post("/within") for _ in range(6)]
            assert [answer.status_code for answer in answers] == [503, *[200] * 5]
            assert answers[0].headers["retry-after"] == "1"
            assert {answer.text for answer in answers[1:]} == {"3"}


class TestWritesAreWhole:
    async def test_a_handler_that_fails_after_a_write_leaves_nothing(
        self, own: Postgres, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A crash between the row and its idempotency key leaves neither, and the key works when all is well again."""
        key = {"Idempotency-Key": "crash-1"}

        async def crash(*_: object) -> None:
            raise ZeroDivisionError

        async with caller({**own.environ, **NOBODY}) as client:
            before = (await client.get(NOTES)).json()["items"]
            with monkeypatch.context() as patch:
                patch.setattr("backend.idempotency.remember", crash)
                assert (await client.post(NOTES, json=NEW, headers=key)).status_code == 500
            assert (await client.get(NOTES)).json()["items"] == before
            answer = await client.post(NOTES, json=NEW, headers=key)
            assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)

    async def test_no_lease_leaves_session_state_behind(self, own: Postgres) -> None:
        """Nothing resets a connection between leases, so every request must leave it as it was."""
        limits = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0"}
        async with caller({**own.environ, **NOBODY, **limits}) as client:
            locks = "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')"
            state = f"SELECT array_agg(name || setting ORDER BY name), {locks} FROM pg_settings"
            database = client._transport.app.state.health.database  # type: ignore[attr-defined]
            async with database.lease() as connection:
                before = await connection.fetchrow(state)
            created = await client.post(NOTES, json=NEW, headers={"Idempotency-Key": "state-1"})
            url = f"{NOTES}/{created.json()['id']}"
            await client.patch(f"{url}?tag=x")
            for path in (url, NOTES, SUMMARY, "/ready"):
                await client.get(path)
            await client.delete(url)
            async with database.lease() as connection:
                assert await connection.fetchrow(state) == before


class TestRedis:
    async def test_hung_costs_reads_a_moment_once(self, own: Postgres, cache: Valkey) -> None:
        """A Redis that accepts and says nothing: reads answer, one waits a little, the rest pass it by."""
        async with caller({**own.environ, "REDIS_HOST": str(cache.socket)}) as client:
            await client.get(SUMMARY)
            with frozen(cache.processes()):
                began = time.perf_counter()
                for _ in range(60):
                    answer, seconds = await timed(client, SUMMARY)
                    assert (answer.status_code, seconds < 0.6) == (200, True)
                metrics = client._transport.app.state.health.cache._metrics  # type: ignore[attr-defined]
                waited = metrics.redis_errors._value.get()
                assert 1 <= waited <= 1 + (time.perf_counter() - began) / BREAK_SECONDS
                assert metrics.redis_bypassed._value.get() >= 60 - waited
                ready = await client.get("/ready")
                assert (ready.status_code, ready.json()["checks"]["redis"]["state"]) == (200, "degraded")

    async def test_a_write_while_redis_is_away_is_not_hidden_by_it_later(self, own: Postgres, cache: Valkey) -> None:
        """An answer that was cached before the outage is not served after a write during it."""
        async with caller({**own.environ, "REDIS_HOST": str(cache.socket)}) as client:
            old = (await client.get(SUMMARY)).json()
            with frozen(cache.processes()):
                created = await client.post(NOTES, json={"text": "while-away"})
                assert created.status_code == 201
            await eventually_serves(client, created.json()["id"])
            assert (await client.get(SUMMARY)).json() != old
            await client.delete(f"{NOTES}/{created.json()['id']}")

    async def test_that_takes_no_writes_is_degraded(self, own: Postgres, cache: Valkey) -> None:
        """Full, or a replica by now: it answers, but nothing is cached. /ready says so, and leaves no key there."""
        async with caller({**own.environ, "REDIS_HOST": str(cache.socket)}) as client:
            with redis.Redis(unix_socket_path=str(cache.socket)) as admin:
                admin.config_set("maxmemory-policy", "noeviction")
                for change, back in (
                    ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
                    ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
                ):
                    admin.execute_command(*change.rsplit(" ", 2))
                    ready = await client.get("/ready")
                    check = ready.json()["checks"]["redis"]
                    assert (ready.status_code, check["state"]) == (200, "degraded")
                    assert "refuses writes" in check["detail"]
                    admin.execute_command(*back.rsplit(" ", 2))
                    assert (await client.get("/ready")).json()["checks"]["redis"]["state"] == "ok"
                assert admin.dbsize() == 0

    async def test_down_and_back(self, own: Postgres, cache: Valkey) -> None:
        """Redis may end and begin again; reads never notice, and the cache is used again."""
        async with caller({**own.environ, "REDIS_HOST": str(cache.socket)}) as client:
            cache.stop()
            assert (await client.get(SUMMARY)).status_code == 200
            await asyncio.to_thread(cache.start)
            hits = client._transport.app.state.health.cache._metrics.cache.labels("hit")  # type: ignore[attr-defined]
            async with asyncio.timeout(30):
                while not hits._value.get():
                    assert (await client.get(SUMMARY)).status_code == 200
                    await asyncio.sleep(0.05)


async def eventually_serves(client: httpx2.AsyncClient, identity: str) -> None:
    """Ask until the summary knows the note, for half a minute."""
    async with asyncio.timeout(30):
        while identity not in (await client.get(SUMMARY)).text:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
