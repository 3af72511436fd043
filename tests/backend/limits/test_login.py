"""How often somebody may try a password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from starlette.requests import Request

from backend.auth import Callers
from backend.limits.clients import Clients
from backend.limits.login import ADDRESS_LIMIT, NAME_LIMIT, REFRESH_LIMIT, LoginLimit
from backend.limits.middleware import TooManyRequests
from backend.metrics import Metrics
from backend.settings import Settings


@pytest.fixture(name="redis")
async def _redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as redis:
        yield redis


def limited(settings: Settings, metrics: Metrics, redis: Redis) -> LoginLimit:
    """Return the limit as a service of these settings has it."""
    return LoginLimit(settings, Clients(settings, Callers(settings)), metrics, redis)


def of(address: str = "192.0.2.1") -> Request:
    """Return a request that comes from there."""
    return Request({"type": "http", "client": (address, 1), "headers": []})


async def refused(limit: LoginLimit, name: str = "ada", address: str = "192.0.2.1") -> int:
    """Try once; return the seconds of Retry-After, 0 where it may be tried."""
    try:
        await limit.check_login(of(address), name)
    except TooManyRequests as problem:
        return int((problem.headers or {})["Retry-After"])
    return 0


async def test_two_replicas_give_one_limit_at_once(settings: Settings, redis: Redis) -> None:
    """The attempts on one name, spread over two replicas, are counted together from the first one on."""
    replicas = [limited(settings, Metrics("dev"), redis) for _ in range(2)]
    answers = [await refused(replicas[number % 2]) for number in range(2 * NAME_LIMIT)]
    assert answers[:NAME_LIMIT] == [0] * NAME_LIMIT
    assert all(0 < seconds <= 65 for seconds in answers[NAME_LIMIT:])


async def test_another_name_or_address_is_not_locked_out(settings: Settings, redis: Redis) -> None:
    """Whoever guesses at a name keeps nobody else from logging in under it; letters' case makes no new name."""
    limit = limited(settings, Metrics("dev"), redis)
    for _ in range(NAME_LIMIT):
        await refused(limit, "ada")
    assert await refused(limit, "ADA") > 0
    assert await refused(limit, "bob") == 0
    assert await refused(limit, "ada", "192.0.2.2") == 0


async def test_one_address_may_not_try_any_number_of_names(
    settings: Settings, redis: Redis, redis_admin_url: str
) -> None:
    """A list of names is refused, too; the names are not in Redis; refreshing goes on, with a limit of its own."""
    metrics = Metrics("dev")
    limit = limited(settings, metrics, redis)
    answers = [await refused(limit, f"name-{number}") for number in range(ADDRESS_LIMIT + 3)]
    assert [bool(seconds) for seconds in answers] == [False] * ADDRESS_LIMIT + [True] * 3
    assert metrics.registry.get_sample_value("http_requests_limited_total", {"client": "login"}) == 3
    async with Redis.from_url(redis_admin_url) as admin:
        fields = [field for key in await admin.keys() for field in await admin.hkeys(key)]
    assert fields
    assert not any(b"name-" in field for field in fields)
    for _ in range(REFRESH_LIMIT):
        await limit.check_refresh(of())
    with pytest.raises(TooManyRequests):
        await limit.check_refresh(of())


async def test_names_that_a_refused_address_tries_are_not_kept(settings: Settings, redis: Redis) -> None:
    """They would wait in memory until somebody is let in, and then go to Redis in one request."""
    limit = limited(settings, Metrics("dev"), redis)
    for number in range(ADDRESS_LIMIT + 500):
        await refused(limit, f"name-{number}")
    assert len({key for _, key in limit._window._unsent}) == 1
    assert len(limit._window._clients) == ADDRESS_LIMIT + 1


async def test_without_redis_each_process_limits_alone(settings: Settings, tmp_path: Path) -> None:
    """Nobody gets a 500, and nobody gets any number of attempts."""
    metrics = Metrics("dev")
    async with Redis.from_url(f"unix://{tmp_path}/nobody.sock") as nobody:
        limit = limited(settings, metrics, nobody)
        answers = [await refused(limit) for _ in range(NAME_LIMIT + 1)]
    assert [bool(seconds) for seconds in answers] == [False] * NAME_LIMIT + [True]
    assert (metrics.registry.get_sample_value("limits_unshared_total") or 0) >= 1
