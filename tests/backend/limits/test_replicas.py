"""One client at three times its limit, on three replicas: what it is answered each second, and what that costs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from backend.auth import Callers
from backend.limits.clients import Clients
from backend.limits.middleware import Limits
from backend.limits.window import EVERY_SECONDS, SLOT_SECONDS, WINDOW_SECONDS, Window
from backend.metrics import Metrics
from backend.settings import Settings
from tests.backend.process import Service, serve, wait_until
from tests.backend.servers import Valkey, valkey
from tests.conftest import AddRow
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "the limiter"
REPLICAS, A_SECOND = 3, 20  # of the limit: so many requests a second
LIMIT = A_SECOND * WINDOW_SECONDS
SECONDS = WINDOW_SECONDS + 2 * SLOT_SECONDS


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> Iterator[Valkey]:
    (tmp_path / "redis").mkdir()
    with valkey(tmp_path / "redis") as server:
        yield server


@pytest.fixture(name="replicas")
def _replicas(notes_environ: dict[str, str], cache: Valkey, tmp_path: Path) -> Iterator[list[Service]]:
    """Three processes that share a Redis of the test's own."""
    environ = {**notes_environ, "REDIS_URL": f"unix://{cache.socket}", "API_RATE_LIMIT": str(LIMIT)}
    with ExitStack() as stack:
        services = []
        for number in range(REPLICAS):
            (folder := tmp_path / str(number)).mkdir()
            services.append(stack.enter_context(serve(environ, folder)))
        yield services


def by_second(replicas: list[Service]) -> list[Counter[int]]:
    """Ask at three times the limit, one replica after the other; return the statuses of each second."""
    seen = [Counter[int]() for _ in range(SECONDS)]
    with ExitStack() as stack:
        clients = [stack.enter_context(service.client(timeout=10)) for service in replicas]
        began = time.monotonic()
        for number in range(REPLICAS * A_SECOND * SECONDS):
            time.sleep(max(0, began + number / (REPLICAS * A_SECOND) - time.monotonic()))
            second = min(int(time.monotonic() - began), SECONDS - 1)
            seen[second][clients[number % REPLICAS].get(f"{NOTES}?limit=1").status_code] += 1
    return seen


def shown(seen: list[Counter[int]]) -> str:
    """Return answered and refused per second, those seconds together that are alike."""
    parts: list[tuple[int, int, str]] = []
    for second, statuses in enumerate(seen):
        said = f"{statuses[200]} answered, {statuses[429]} refused"
        if parts and parts[-1][2] == said:
            parts[-1] = (parts[-1][0], second, said)
        else:
            parts.append((second, second, said))
    return "; ".join(f"{first}-{last} s: {said} a second" for first, last, said in parts)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_client_at_three_times_its_limit(
    replicas: list[Service], cache: Valkey, add_row: AddRow, *, stopped: bool
) -> None:
    """It gets its limit, and what 200 ms of it are per replica; with Redis stopped, it gets the limit of each."""
    if stopped:
        cache.stop()
    seen = by_second(replicas)
    statuses = sum(seen, Counter[int]())
    assert set(statuses) <= {200, 429}
    add_row(
        TABLE, f"{REPLICAS * A_SECOND}/s, limit {A_SECOND}/s, Redis {'stopped' if stopped else 'there'}: {shown(seen)}"
    )
    first = sum(seen[:WINDOW_SECONDS], Counter[int]())
    if stopped:
        # Each replica is asked at its limit, and counts in slots that it keeps whole.
        assert first[200] >= REPLICAS * LIMIT * (WINDOW_SECONDS - SLOT_SECONDS) / WINDOW_SECONDS
        for service in replicas:
            wait_until(lambda one=service: one.metrics()["limits_unshared_total"] > 0, "not counted")  # type: ignore[misc]
    else:
        # Two rounds: what one replica counts is known to the others after its own and theirs.
        assert LIMIT <= first[200] <= LIMIT + REPLICAS * A_SECOND * 2 * EVERY_SECONDS + A_SECOND
        assert first[429] == first.total() - first[200] > 0


async def test_costs_microseconds(settings: Settings, add_row: AddRow) -> None:
    """Of a request: the layer around an application that does nothing, less that application."""

    async def nothing(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        raise AssertionError

    async def ignore(_: Message) -> None: ...

    metrics = Metrics("dev")
    clients = Clients(settings, Callers(settings))
    limited = Limits(nothing, clients=clients, window=Window("bench", metrics), metrics=metrics)
    scope: dict[str, Any] = {"type": "http", "path": NOTES, "headers": [], "client": ("192.0.2.1", 1), "method": "GET"}
    costs = []
    for _ in range(7):
        took = []
        for app in (nothing, limited):
            began = time.perf_counter()
            for _ in range(5_000):
                await app(scope, receive, ignore)
            took.append(time.perf_counter() - began)
        costs.append((took[1] - took[0]) / 5_000 * 1e6)
    add_row(TABLE, f"{median(costs):.1f} µs a request, Redis or not")
    assert 0 < median(costs) < 200
