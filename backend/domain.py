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

__all__ = ["DESCRIPTION", "HOT", "REMOVE_SYNTHETIC", "ROUTERS", "TITLE", "running"]

TITLE = "the release board"
DESCRIPTION = "Services' releases, and what runs where."
HOT = (releases.hot, environments.hot)  # the routes that are asked most: they are tried first, in this order
ROUTERS = (releases.router,)
# How `python -m backend.synthetic` removes what the proof wrote, statement by statement: $1 are ids as text, $2 is null
# or the time before which the rows of all proofs go. Children first, where one row refers to another.
REMOVE_SYNTHETIC = (
    "DELETE FROM releases WHERE synthetic AND (id = ANY ($1::text[]::uuid[]) OR created_at < $2::timestamptz)",
)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Run what the routes need: it is on `app.state` before the first request, and ended after the last one.

    A background task starts before the `yield` and ends after it.
    """
    app.state.releases = ReleaseService(database, cache)
    app.state.environments = EnvironmentService(database, cache)
    yield
