"""How requests are counted: in one process, in several, and without Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import pytest
from redis.asyncio import Redis

from backend.limits.window import SLOT_SECONDS, WINDOW_SECONDS, Window
from backend.metrics import Metrics
from tests.backend.servers import Valkey, frozen, valkey

LIMIT = 60

Passing = Callable[[float], None]


@pytest.fixture(name="window")
def _window() -> Window:
    return Window("test", Metrics("dev"))


@pytest.fixture(name="passing")
def _passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    """A function that lets seconds pass on the clock of the window, which stands still otherwise."""
    now = 1_000_000.0
    monkeypatch.setattr("backend.limits.window.time", lambda: now)
    monkeypatch.setattr("backend.limits.window.monotonic", lambda: now)

    def passing(seconds: float) -> None:
        nonlocal now
        now += seconds

    return passing


def allowed(window: Window, times: int, key: str = "a client", limit: int = LIMIT) -> int:
    """Ask as often, and return how often that was within the limit."""
    return sum(window.hit(key, limit)[0] >= 0 for _ in range(times))


class TestOneProcess:
    def test_says_what_is_left_and_when_there_is_more(self, passing: Passing) -> None:
        """The rest falls to 0; one too many is -1; after the seconds that it was told, the client has room again."""
        window = Window("test", Metrics("dev"))
        assert [window.hit("a client", 2)[0] for _ in range(3)] == [1, 0, -1]
        seconds = window.hit("a client", 2)[1]
        assert WINDOW_SECONDS <= seconds <= WINDOW_SECONDS + SLOT_SECONDS
        passing(seconds - 0.1)
        assert window.hit("a client", 2)[0] == -1
        passing(0.1)
        assert window.hit("a client", 2)[0] == 1

    @pytest.mark.parametrize("every", [0.05, 0.3, 0.99, 7.0])
    def test_no_minute_has_more_than_the_limit(self, passing: Passing, every: float) -> None:
        """Whenever a client asks, and however fast; and it is not refused much longer than need be."""
        window, given, now = Window("test", Metrics("dev")), list[float](), 0.0
        while now < 4 * WINDOW_SECONDS:
            given += [now] * allowed(window, 1)
            now += every
            passing(every)
        busiest = max(sum(start <= each < start + WINDOW_SECONDS for each in given) for start in given)
        assert busiest <= LIMIT
        assert len(given) >= min(4 * WINDOW_SECONDS / every, 4 * LIMIT) * 12 / 13 - 1

    def test_clients_do_not_share(self, window: Window) -> None:
        """One that is refused takes nothing from another."""
        assert allowed(window, 2 * LIMIT, "one") == LIMIT
        assert allowed(window, 1, "other") == 1

    def test_forgets_who_asked_longest_ago(self) -> None:
        """One client more than are known: the one that asked longest ago starts again, and nobody else."""
        window = Window("test", Metrics("dev"), capacity=2)
        for key in ("first", "second", "first"):
            window.hit(key, LIMIT)
        window.hit("third", LIMIT)
        assert [window.hit(key, LIMIT)[0] for key in ("first", "second")] == [LIMIT - 3, LIMIT - 1]


class TestSeveralProcesses:
    async def test_three_give_one_limit(self, redis_url: str) -> None:
        """One client asks three processes at many times its limit: it gets that, and what each gives in a round."""
        limit, each, given = 300, 20, 0
        async with Redis.from_url(redis_url) as redis:
            windows = [Window("test", Metrics("dev")) for _ in range(3)]
            for _ in range(3 * limit // each):
                given += sum(allowed(window, each, limit=limit) for window in windows)
                for window in windows:
                    await window.reconcile(redis)
            assert [allowed(window, 1, limit=limit) for window in windows] == [0, 0, 0]
        assert limit <= given <= limit + 3 * each * len(windows)

    async def test_one_that_is_new_learns_what_the_others_gave(self, redis_url: str) -> None:
        """Slots that have passed are read, too, so a replica that has just come gives no second limit."""
        async with Redis.from_url(redis_url) as redis:
            old, new = Window("test", Metrics("dev")), Window("test", Metrics("dev"))
            for ago in (7, 3):  # slots; as if so much later
                old._ahead = time.time() - time.monotonic() - ago * SLOT_SECONDS
                assert allowed(old, LIMIT // 3) == LIMIT // 3
                await old.reconcile(redis)
            assert allowed(new, 1) == 1
            await new.reconcile(redis)
            assert new.hit("a client", LIMIT)[0] == LIMIT - 2 * (LIMIT // 3) - 2

    async def test_one_that_was_forgotten_gets_no_second_limit(self, redis_url: str) -> None:
        """Who makes a process forget its client has only 200 ms of it: Redis knows."""
        async with Redis.from_url(redis_url) as redis:
            window = Window("test", Metrics("dev"), capacity=1)
            assert allowed(window, LIMIT) == LIMIT
            await window.reconcile(redis)
            window.hit("another", LIMIT)
            assert allowed(window, 1) == 1
            await window.reconcile(redis)
            assert allowed(window, 1) == 0

    async def test_hosts_need_not_agree_on_the_time(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A host whose clock is a minute ahead counts in the slots of the others, once it has asked Redis."""
        async with Redis.from_url(redis_url) as redis:
            right = Window("test", Metrics("dev"))
            monkeypatch.setattr("backend.limits.window.time", lambda: time.time() + 60)
            wrong = Window("test", Metrics("dev"))
            assert allowed(wrong, 1) == 1
            await wrong.reconcile(redis)
            assert allowed(wrong, LIMIT) == LIMIT
            await wrong.reconcile(redis)
            assert allowed(right, 1) == 1
            await right.reconcile(redis)
            assert allowed(right, 1) == 0

    async def test_leaves_nothing_in_redis(self, redis_admin_url: str) -> None:
        """Each key expires soon after its slot has left the window."""
        async with Redis.from_url(redis_admin_url) as redis:
            window = Window("test", Metrics("dev"))
            window.hit("a client", LIMIT)
            await window.reconcile(redis)
            [key] = await redis.keys()
            assert await redis.keys("test:limits:*") == [key]
            assert 0 < await redis.ttl(key) <= WINDOW_SECONDS + 2 * SLOT_SECONDS


class TestRedisAway:
    @pytest.fixture(name="server")
    def _server(self, tmp_path: Path) -> Iterator[Valkey]:
        with valkey(tmp_path) as server:
            yield server

    @pytest.mark.parametrize("hung", [False, True])
    async def test_each_limits_alone_and_nobody_waits(self, server: Valkey, *, hung: bool) -> None:
        """Redis ended or hangs: two processes give a limit each; the metric counts it; back, it is one limit again."""
        metrics = Metrics("dev")
        async with AsyncExitStack() as stack:
            redis = await stack.enter_async_context(Redis.from_url(f"unix://{server.socket}", socket_timeout=0.2))
            windows = [Window("test", metrics) for _ in range(2)]
            for window in windows:
                await stack.enter_async_context(window.reconciled(redis))
            with frozen(server.processes()) if hung else nullcontext():
                if not hung:
                    await asyncio.to_thread(server.stop)
                assert [allowed(window, 2 * LIMIT, "before") for window in windows] == [LIMIT, LIMIT]
                async with asyncio.timeout(20):
                    while metrics.limits_unshared._value.get() < len(windows):  # noqa: ASYNC110 - other tasks count
                        await asyncio.sleep(0.05)
            if not hung:
                await asyncio.to_thread(server.start)
            async with asyncio.timeout(20):
                while not await _shares(*windows):
                    pass  # asked again, with another client, until Redis is back or the time is up


async def _shares(one: Window, other: Window) -> bool:
    """Whether `other` soon knows of a client that `one` gave all there is."""
    key = f"after {time.monotonic()}"
    assert allowed(one, LIMIT, key) == LIMIT
    other.hit(key, LIMIT)
    await asyncio.sleep(0.5)
    return other.hit(key, LIMIT)[0] < 0
