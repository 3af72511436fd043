"""The limits of what is guessed: passwords. They are strict, so they are asked of Redis before anything is tried."""

from __future__ import annotations

import hashlib

from redis.asyncio import Redis
from starlette.requests import Request

from backend.limits.clients import Clients
from backend.limits.middleware import TooManyRequests
from backend.limits.window import Window
from backend.metrics import Metrics
from backend.settings import Settings

__all__ = ["LoginLimit"]

# A minute. A person mistypes a password three times; behind the address of an office many people begin their day.
NAME_LIMIT = 10  # of one name from one address
ADDRESS_LIMIT = 60  # of one address, whatever the names
REFRESH_LIMIT = 120  # of one address: each page refreshes once in JWT_EXPIRE_MINUTES


class LoginLimit:
    """How often an address may try to log in, or to refresh.

    There is no limit of a name alone: with it, anybody could lock out anybody. Redis is asked at once, so that several
    replicas give one limit; while it is away, each process limits alone. The library `limits` is not used: it would
    bring a client of its own or demand an older redis-py (its extra has redis<8), and takes another round trip for
    `Retry-After`.
    """

    def __init__(self, settings: Settings, clients: Clients, metrics: Metrics, redis: Redis) -> None:
        self._window = Window(f"{settings.project_name}:login", metrics)
        self._clients, self._metrics, self._redis = clients, metrics, redis

    async def check_login(self, request: Request, name: str) -> None:
        """Count an attempt to log in as `name`. Raise `TooManyRequests` before the password is looked at."""
        address = self._clients.of_address(request.scope).key
        # Whatever somebody wrote into the field is not kept, and has one length.
        digest = hashlib.sha256(name.casefold().encode("utf-8", "surrogatepass")).hexdigest()[:32]
        # The address first: once it is refused, whatever names it tries are not even counted.
        await self._check((address, ADDRESS_LIMIT), (f"{address} {digest}", NAME_LIMIT))

    async def check_refresh(self, request: Request) -> None:
        """Count a refresh. Raise `TooManyRequests` where an address sends too many."""
        await self._check((f"{self._clients.of_address(request.scope).key} refresh", REFRESH_LIMIT))

    async def _check(self, *limits: tuple[str, int]) -> None:
        left, seconds = await self._window.ask(self._redis, *limits)
        if left < 0:
            self._metrics.limited.labels("login").inc()
            raise TooManyRequests(
                f"Too many attempts; try again in {seconds} s.", headers={"Retry-After": str(seconds)}
            )
