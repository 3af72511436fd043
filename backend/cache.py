"""Redis as a cache: short timeouts, no retries, and a circuit breaker. Without Redis the service still works."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backend.metrics import Metrics
from backend.settings import Settings
from backend.tracing import Tracing

__all__ = ["Cache", "Found"]

# redis-py's defaults are 5 s and 10 retries: a hung Redis then stalls each request for 40 s.
SOCKET_SECONDS = 0.2
POOL_SECONDS = 0.1
BREAK_SECONDS = 1.0
FORGET_SECONDS = 2.0
GLOB = re.compile(r"([][*?^\\-])")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a read. `generation` is None while the cache cannot store an answer."""

    generation: bytes | None
    value: bytes | None


class Cache:
    """Cached answers by name, each valid for one generation of the data it was made from.

    A writer ends the generation *after* its commit. An answer computed from older rows carries the older generation
    and is never served, however late it is stored.
    """

    def __init__(self, settings: Settings, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self._redis = (tracing.redis_class() if tracing else Redis).from_pool(_pool(settings))
        self._expire = settings.redis_expire_seconds
        self._prefix, self._release = settings.project_name, settings.release
        self._metrics = metrics
        self._log = structlog.get_logger("cache")
        self._open_until = 0.0  # 0 while Redis works
        self._unforgotten: set[str] = set()

    @property
    def redis(self) -> Redis:
        """The client, for what is no cached answer: REDIS_MAX_CONNECTIONS holds for all of it together."""
        return self._redis

    async def close(self) -> None:
        """Close every connection."""
        await self._redis.aclose()

    async def get(self, name: str) -> Found:
        """Return the answer `name` if it is of the current generation, and that generation, in one round trip."""
        if name in self._unforgotten:
            await self.forget(name)
        nothing: list[bytes | None] = [None, None]
        generation, stored = await self._ask(lambda: self._redis.mget(self._keys(name)), nothing)
        if generation is None and not self._open_until:
            await self.forget(name)  # the first read ever, or the first after Redis lost its data
        elif generation is not None and stored is not None and stored.startswith(generation):
            self._metrics.cache.labels("hit").inc()
            return Found(generation, stored[len(generation) :])
        self._metrics.cache.labels("miss").inc()
        return Found(generation, None)

    async def put(self, name: str, found: Found, value: bytes) -> None:
        """Store `value` as the answer `name` of the generation that was `found` before `value` was computed."""
        if found.generation is not None:
            entry = found.generation + value
            await self._ask(lambda: self._redis.set(self._keys(name)[1], entry, ex=self._expire), None)

    async def forget(self, name: str) -> None:
        """End the generation of `name`.

        When Redis does not answer, the next read of this process tries again; other processes may serve the old answer
        until it expires (REDIS_EXPIRE_SECONDS).
        """
        fresh = secrets.token_bytes(8)
        done = await self._ask(lambda: self._redis.set(self._keys(name)[0], fresh), otherwise=False)
        (self._unforgotten.discard if done else self._unforgotten.add)(name)

    async def forget_all(self) -> int:
        """End the generation of every name that any process has; return how many. Raise as `check` does."""
        prefix = GLOB.sub(r"\\\1", self._prefix)
        async with asyncio.timeout(FORGET_SECONDS):
            keys = [key async for key in self._redis.scan_iter(f"{prefix}:{{*}}:generation", count=1000)]
            for key in keys:
                await self._redis.set(key, secrets.token_bytes(8))
        return len(keys)

    async def check(self) -> None:
        """Raise `RedisError`, `OSError` or `TimeoutError` when Redis takes no writes; the breaker is bypassed."""
        # It writes nothing, as there is no such key; yet Redis refuses it where it is full, or a replica by now.
        async with asyncio.timeout(SOCKET_SECONDS):
            await self._redis.set(f"{self._prefix}:check", b"", xx=True)

    def _keys(self, name: str) -> tuple[str, str]:
        # One hash tag keeps both keys on one node of a cluster, so that MGET may read both.
        # Each release has its own answer: an older one's would hide that a new release can no longer compute it.
        return f"{self._prefix}:{{{name}}}:generation", f"{self._prefix}:{{{name}}}:{self._release}"

    async def _ask(self, command: Callable[[], Awaitable[Any]], otherwise: Answer) -> Answer:
        now = monotonic()
        if now < self._open_until:
            self._metrics.redis_bypassed.inc()
            return otherwise
        if self._open_until:
            self._open_until = now + BREAK_SECONDS  # only this request tries; the others go on without Redis
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                answer: Answer = await command()
        except (RedisError, OSError) as error:
            self._metrics.redis_errors.inc()
            if not self._open_until:
                self._log.warning("redis unavailable", reason=str(error) or type(error).__name__)
            self._open_until = monotonic() + BREAK_SECONDS
            return otherwise
        if self._open_until:
            self._open_until = 0.0
            self._log.info("redis available again")
        return answer


def _pool(settings: Settings) -> BlockingConnectionPool:
    limits: dict[str, Any] = {
        "max_connections": settings.redis_max_connections,
        "timeout": POOL_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # saves a round trip (CLIENT SETINFO) per connection
    }
    if settings.redis_url is not None:
        return BlockingConnectionPool.from_url(settings.redis_url.get_secret_value(), **limits)
    limits["password"] = settings.redis_password.get_secret_value() if settings.redis_password else None
    if settings.redis_host.startswith("/"):
        return BlockingConnectionPool(connection_class=UnixDomainSocketConnection, path=settings.redis_host, **limits)
    return BlockingConnectionPool(host=settings.redis_host, port=settings.redis_port, **limits)
