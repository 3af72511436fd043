"""The fault matrix: what PostgreSQL and Redis do to callers in ten seconds of each fault, and in those after it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias
from uuid import uuid4

import asyncpg
import httpx2
import pytest
from redis import Redis

from pipeline.proof.generator import StallClock
from tests.backend.accounts.conftest import AUTH, HASH, PASSWORD
from tests.backend.process import Service, serve
from tests.backend.servers import Postgres, Valkey, frozen, postgres, valkey
from tests.conftest import KEY, TOKEN, AddRow
from tests.notes import NOTES, SUMMARY
from tests.project import NAME
from tests.services import psql

pytestmark = pytest.mark.e2e

SECONDS = 10
NOTICED_SECONDS = 1  # /ready says so
RECOVERED_SECONDS = 5
SIZE, OVERFLOW = 4, 4
ROLE = "matrix"
OURS = f"FROM pg_stat_activity WHERE application_name = '{NAME}-backend'"

Fault: TypeAlias = Callable[[Postgres, Valkey], AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module", name="own")
def _own() -> Iterator[Postgres]:
    with postgres() as server:
        role = f"CREATE ROLE {ROLE} LOGIN PASSWORD '{server.services.postgres_password}'"
        account = (
            f"INSERT INTO accounts (id, name, role, password_hash) VALUES ('{uuid4()}', 'anna', 'viewer', '{HASH}')"
        )
        for statement in (role, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ROLE}", account):
            psql(server.services, "postgres", statement)
        yield server


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> Iterator[Valkey]:
    with valkey(tmp_path) as server:
        yield server


@pytest.fixture(name="service")
def _service(own: Postgres, cache: Valkey, notes_root: Path, tmp_path: Path) -> Iterator[Service]:
    environ = {
        **own.environ,
        "POSTGRES_USER": ROLE,
        "REDIS_HOST": str(cache.socket),
        "DATABASE_POOL_SIZE": str(SIZE),
        "DATABASE_MAX_OVERFLOW": str(OVERFLOW),
        "SERVICE_TOKEN": TOKEN,
        "JWT_SECRET_KEY": KEY,
        "PYTHONPATH": str(notes_root),
        "PYTHONSAFEPATH": "1",  # the service with the tests' notes, instead of that of the working folder
    }
    with serve(environ, tmp_path) as service:
        yield service


@asynccontextmanager
async def postgres_stopped(own: Postgres, _: Valkey) -> AsyncIterator[None]:
    """Shut down, and started at the end."""
    await asyncio.to_thread(own.stop)
    yield
    await asyncio.to_thread(own.start)


@asynccontextmanager
async def postgres_paused(own: Postgres, _: Valkey) -> AsyncIterator[None]:
    """SIGSTOP: connections stay, and nothing answers."""
    with frozen(own.processes()):
        yield


@asynccontextmanager
async def postgres_restarted(own: Postgres, _: Valkey) -> AsyncIterator[None]:
    """Again and again."""

    def restart() -> None:
        own.stop()
        own.start()

    async with repeated(restart, every=1):
        yield


@asynccontextmanager
async def postgres_out_of_connections(own: Postgres, _: Valkey) -> AsyncIterator[None]:
    """No session is left, and none is let in: SQLSTATE 53300, as of a server whose max_connections others have."""
    await asyncio.to_thread(psql, own.services, "postgres", f"ALTER ROLE {ROLE} CONNECTION LIMIT 0")
    await asyncio.to_thread(psql, own.services, "postgres", f"SELECT pg_terminate_backend(pid) {OURS}")
    yield
    await asyncio.to_thread(psql, own.services, "postgres", f"ALTER ROLE {ROLE} CONNECTION LIMIT -1")


@asynccontextmanager
async def postgres_read_only(own: Postgres, _: Valkey) -> AsyncIterator[None]:
    """Sessions stay, and take no writes."""
    for change in ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"):
        await asyncio.to_thread(psql, own.services, "postgres", f"ALTER SYSTEM {change}")
        await asyncio.to_thread(psql, own.services, "postgres", "SELECT pg_reload_conf()")
        if change.startswith("SET"):
            yield


@asynccontextmanager
async def redis_stopped(_: Postgres, cache: Valkey) -> AsyncIterator[None]:
    """Shut down, and started at the end, empty."""
    await asyncio.to_thread(cache.stop)
    yield
    await asyncio.to_thread(cache.start)


@asynccontextmanager
async def redis_paused(_: Postgres, cache: Valkey) -> AsyncIterator[None]:
    """SIGSTOP, as above."""
    with frozen(cache.processes()):
        yield


@asynccontextmanager
async def redis_full(_: Postgres, cache: Valkey) -> AsyncIterator[None]:
    """It refuses what would take memory, and reads go on."""
    with contextlib.closing(Redis(unix_socket_path=str(cache.socket))) as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", 1)
        yield
        admin.config_set("maxmemory", 0)


@asynccontextmanager
async def redis_flushed(_: Postgres, cache: Valkey) -> AsyncIterator[None]:
    """Again and again."""
    with contextlib.closing(Redis(unix_socket_path=str(cache.socket))) as admin:
        async with repeated(admin.flushall, every=0.1):
            yield


@asynccontextmanager
async def repeated(step: Callable[[], object], *, every: float) -> AsyncIterator[None]:
    """Take `step` again and again, on a thread, while the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            step()
            over.wait(every)

    task = asyncio.create_task(asyncio.to_thread(work))
    yield
    over.set()
    await task


@dataclass(frozen=True)
class Seen:
    """An answer: to what kind of request, when that began and ended, and how long it took while this process ran."""

    kind: str
    began: float
    ended: float
    seconds: float
    answer: httpx2.Response | None  # None: the connection broke, or nothing came

    @property
    def failed(self) -> bool:
        """Whether it is not what it is while all is well."""
        return self.status != DONE[self.kind]

    @property
    def status(self) -> int:
        """Its status; 0 for none."""
        return self.answer.status_code if self.answer else 0

    @property
    def ready(self) -> tuple[int, str]:
        """What an answer of /ready says: its status, and the state of Redis."""
        assert self.answer is not None
        return self.status, self.answer.json()["checks"]["redis"]["state"]


class Traffic:
    """Requests of each kind to `client`, at their pace whatever the service does, while the block runs."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.seen: list[Seen] = []
        self.written: list[str] = []
        self._client, self._token = client, ""
        self._addresses = itertools.cycle(f"192.0.2.{number}" for number in range(1, 9))  # sign-ins are limited by it
        self._over = asyncio.Event()

    def of(self, kind: str) -> list[Seen]:
        """Return the answers to requests of that kind."""
        return [one for one in self.seen if one.kind == kind]

    async def __aenter__(self) -> Self:
        """Sign in, and begin."""
        self._loop = asyncio.get_running_loop()
        self._clock = StallClock(self._loop)
        self._token = (await self._sign_in()).json()["refresh_token"]
        self._group = await asyncio.TaskGroup().__aenter__()
        for ask, every in (
            (self._read, 0.1), (self._summary, 0.2), (self._write, 0.2), (self._sign_in, 2), (self._health, 0.1),
        ):  # fmt: skip
            self._group.create_task(self._each(ask, every))
        for ask, every in ((self._refresh, 0.5), (self._ready, 0.05)):
            self._group.create_task(self._in_turn(ask, every))
        return self

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036 - handed on
        """Begin no more, and wait for the last answers."""
        self._over.set()
        await self._group.__aexit__(*error)
        self._clock.stop()

    async def _each(self, ask: Callable[[], Coroutine[Any, Any, Any]], every: float) -> None:
        while not self._over.is_set():
            self._group.create_task(ask())
            await asyncio.sleep(every)

    async def _in_turn(self, ask: Callable[[], Coroutine[Any, Any, Any]], every: float) -> None:
        while not self._over.is_set():
            await ask()
            await asyncio.sleep(every)

    async def _ask(self, kind: str, method: str, path: str, **options: Any) -> httpx2.Response:
        began = self._loop.time()
        stalled = self._clock.stalled(began)
        answer = None
        with contextlib.suppress(httpx2.TransportError):
            answer = await self._client.request(method, path, **options)
        ended = self._loop.time()
        seconds = ended - began - (self._clock.stalled(ended) - stalled)
        self.seen.append(Seen(kind, began, ended, seconds, answer))
        return answer or httpx2.Response(500)

    async def _read(self) -> None:
        await self._ask("read", "GET", NOTES)

    async def _summary(self) -> None:
        await self._ask("summary", "GET", SUMMARY)

    async def _write(self) -> None:
        answer = await self._ask("write", "POST", NOTES, json={"text": "x"})
        if answer.status_code == 201:
            self.written.append(answer.json()["id"])

    async def _sign_in(self) -> httpx2.Response:
        body, address = {"username": "anna", "password": PASSWORD}, next(self._addresses)
        return await self._ask("sign-in", "POST", f"{AUTH}/login", json=body, headers={"X-Forwarded-For": address})

    async def _refresh(self) -> None:
        answer = await self._ask("refresh", "POST", f"{AUTH}/refresh", json={"refresh_token": self._token})
        if answer.status_code == 200:
            self._token = answer.json()["refresh_token"]

    async def _health(self) -> None:
        await self._ask("health", "GET", "/health")

    async def _ready(self) -> None:
        await self._ask("ready", "GET", "/ready")


DONE = {"read": 200, "summary": 200, "write": 201, "sign-in": 200, "refresh": 200, "health": 200, "ready": 200}
ALL = frozenset({"read", "summary", "write", "sign-in", "refresh"})
NOTHING = frozenset[str]()


@pytest.mark.parametrize(
    ("fault", "refused", "ready"),
    [
        (postgres_stopped, ALL, (503, "ok")),
        (postgres_paused, ALL, (503, "ok")),
        (postgres_restarted, ALL, None),
        (postgres_out_of_connections, ALL, (503, "ok")),
        (postgres_read_only, ALL - {"read", "summary"}, (503, "ok")),
        (redis_stopped, NOTHING, (200, "degraded")),
        (redis_paused, NOTHING, (200, "degraded")),
        (redis_full, NOTHING, (200, "degraded")),
        (redis_flushed, NOTHING, (200, "ok")),
    ],
)
async def test_ten_seconds_of(
    *, fault: Fault, refused: frozenset[str], ready: tuple[int, str] | None,
    own: Postgres, cache: Valkey, service: Service, add_row: AddRow,
) -> None:  # fmt: skip
    """What the fault takes is a 503 with Retry-After, all else goes on; then all is as before, and nothing is lost."""
    now = asyncio.get_running_loop().time
    async with calling(service) as client:
        async with Traffic(client) as traffic:
            await asyncio.sleep(1)
            began = now()
            async with fault(own, cache):
                holds = now()
                await asyncio.sleep(SECONDS)
                ends = now()
            over = now()
            await asyncio.sleep(RECOVERED_SECONDS + 1)
        kept, pooled = await pool_of(own, SIZE)
        newest = (await client.post(NOTES, json={"text": "x"})).raise_for_status().json()["id"]
        assert (await client.get(SUMMARY)).json()["newest"] == newest

    seen, probes = traffic.seen, traffic.of("ready")
    failed = [one for one in seen if one.failed and one.kind != "ready"]
    during = [one for one in probes if holds <= one.began and one.ended <= ends]
    noticed = min((one.ended for one in during if one.ready == ready), default=ends)
    recovered = max((one.ended for one in seen if one.failed and one.began >= over), default=over)
    lost = len(traffic.written) - await found(own, traffic.written)
    kinds = dict(Counter(f"{one.kind} {one.status}" for one in failed))
    name = fault.__name__.replace("_", " ")
    health, asked = (max(one.seconds for one in traffic.of(kind)) for kind in ("health", "ready"))
    add_row(
        f"{SECONDS} s of a fault under traffic",
        f"{name:28} {len(seen)} requests, refused: {kinds}; /health in {health:.2f} s, /ready in {asked:.2f} s at most,"
        f" right after {f'{noticed - holds:.2f}' if ready else '-'} s; recovered after {recovered - over:.2f} s;"
        f" {len(traffic.written)} writes, {lost} lost; a pool of {kept} after {pooled:.1f} s",
    )
    assert {one.status for one in failed} <= {503}, kinds
    assert all(one.answer and "retry-after" in one.answer.headers for one in failed)
    assert {one.kind for one in failed} <= refused, kinds
    assert bool(refused) == ("write 503" in kinds)
    assert not [one for one in failed if one.ended < began]
    if ready:
        assert noticed - holds < NOTICED_SECONDS
        assert {one.ready for one in during if one.began > noticed} == {ready}
    assert asked < NOTICED_SECONDS
    assert recovered - over < RECOVERED_SECONDS
    assert probes[-1].ready == (200, "ok")
    assert (lost, kept) == (0, SIZE)
    assert not [line for line in service.printed().splitlines() if '"level":"error"' in line]


@asynccontextmanager
async def calling(service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a caller with SERVICE_TOKEN, of as many connections as there are requests at once."""
    transport = httpx2.AsyncHTTPTransport(uds=service.path, verify=False, limits=httpx2.Limits(max_connections=None))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://service", headers=headers, timeout=30
    ) as client:
        yield client


async def pool_of(own: Postgres, size: int) -> tuple[int, float]:
    """Return how many sessions the service has once there are `size`, or after 20 s, and when that was."""
    now = asyncio.get_running_loop().time
    began, count = now(), -1
    async with connected(own) as connection:
        while count != size and now() < began + 20:
            count = int(await connection.fetchval(f"SELECT count(*) {OURS}"))
            await asyncio.sleep(0.1)
    return count, now() - began


async def found(own: Postgres, written: list[str]) -> int:
    """Return how many of the notes `written` are there."""
    async with connected(own) as connection:
        return int(await connection.fetchval("SELECT count(*) FROM testing_notes WHERE id::text = ANY($1)", written))


@asynccontextmanager
async def connected(own: Postgres) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Yield a session of the tests' own."""
    connection = await asyncpg.connect(
        host=str(own.folder), user="postgres", database="postgres", password=own.services.postgres_password
    )
    try:
        yield connection
    finally:
        await connection.close()
