"""What the service is about: the routes, and what they need while it runs. Replace this module with your own.

`backend/app.py` takes the domain from here and nowhere else. Its tables are in `backend/migrations/versions`, its
requests in `[[tool.slipway.requests]]`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from backend.cache import Cache
from backend.database import Database
from backend.environments import endpoints as environments
from backend.environments.service import EnvironmentService
from backend.releases import endpoints as releases
from backend.releases.service import ReleaseService

__all__ = ["DESCRIPTION", "HOT", "ROUTERS", "TITLE", "running"]

TITLE = "the release board"
DESCRIPTION = "Services' releases, and what runs where."
HOT = (releases.hot, environments.hot)  # the routes that are asked most: they are tried first, in this order
ROUTERS = (releases.router,)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Run what the routes need: it is on `app.state` before the first request, and ended after the last one.

    A background task starts before the `yield` and ends after it.
    """
    app.state.releases = ReleaseService(database, cache)
    app.state.environments = EnvironmentService(database, cache)
    yield
