"""The wiring of a derived service: its own text, with a task that works beside the requests. See test_derived.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from backend import domain, openapi, problems
from backend.accounts import endpoints as accounts
from backend.accounts.service import AccountService
from backend.auth import Callers, MembersOnly
from backend.cache import Cache
from backend.database import Database, DatabaseUnavailable
from backend.drain import Drain
from backend.forwarded import Forwarded
from backend.health import endpoints as health
from backend.health.service import HealthService
from backend.limits.clients import Clients
from backend.limits.login import LoginLimit
from backend.limits.middleware import Limits
from backend.limits.window import Window
from backend.metrics import Metrics
from backend.middleware import LastResort, Observation
from backend.settings import Settings
from backend.tracing import TracedRequests, Tracing

__all__ = ["create_app"]

log = structlog.get_logger("carrier")


def create_app(
    settings: Settings, *, drain: Drain | None = None, metrics: Metrics | None = None, tracing: Tracing | None = None
) -> FastAPI:
    """Return the service, with a task that asks the carrier."""
    drain, metrics = drain or Drain(), metrics or Metrics(settings.release)
    callers, window = Callers(settings), Window(settings.project_name, metrics)
    clients = Clients(settings, callers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database, cache = Database(settings, metrics, tracing), Cache(settings, metrics, tracing)
        await database.open()
        app.state.health = HealthService(database, cache, drain)
        app.state.accounts = members = AccountService(database, callers.tokens, days=settings.jwt_refresh_days)
        app.state.login_limit = LoginLimit(settings, clients, metrics, cache.redis)
        log.info("started", settings=settings.environment)
        worker = asyncio.create_task(_ask_the_carrier(settings, database))
        try:
            async with window.reconciled(cache.redis), domain.running(app, database, cache):
                yield
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            members.close()
            await cache.close()
            await database.close()

    app = FastAPI(title="parcels", version=settings.release, lifespan=lifespan, redoc_url=None)
    app.state.settings, app.state.callers, app.state.clients = settings, callers, clients
    if not settings.anonymous_read:
        app.add_middleware(MembersOnly, callers=callers)
    app.add_middleware(LastResort, debug=settings.debug)
    app.add_middleware(Limits, clients=clients, window=window, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(settings.cors_origins), allow_credentials=True)
    if tracing:
        app.add_middleware(TracedRequests, tracing=tracing)
    app.add_middleware(Observation, settings=settings, metrics=metrics, drain=drain)
    app.add_middleware(Forwarded, trusted=settings.trusted_proxies)
    problems.install(app)
    openapi.install(app, closed=not settings.anonymous_read)
    for router in (*domain.HOT, *domain.ROUTERS, health.hot, health.router, accounts.router):
        app.include_router(router)
    return app


async def _ask_the_carrier(settings: Settings, database: Database) -> None:
    key = settings.carrier_key  # type: ignore[attr-defined]  # the copy declares it
    while True:
        with contextlib.suppress(DatabaseUnavailable):
            async with database.lease() as connection:
                await connection.fetchval("SELECT 1")
        log.info("asked the carrier", key=bool(key.get_secret_value()))
        await asyncio.sleep(1)
