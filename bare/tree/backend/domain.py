"""What the service is about: the routes, and what they need while it runs. `items` is here to be copied from.

`backend/app.py` takes the domain from here and nowhere else. Its tables are in `backend/migrations/versions`, its
requests in `[[tool.slipway.requests]]`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from backend.cache import Cache
from backend.database import Database
from backend.items import endpoints as items
from backend.items.service import ItemService

__all__ = ["DESCRIPTION", "HOT", "REMOVE_SYNTHETIC", "ROUTERS", "TITLE", "running"]

TITLE = "items"
DESCRIPTION = "One resource to begin with."
HOT: tuple[APIRouter, ...] = ()  # the routes that are asked most (see `backend/routing.py`): they are tried first
ROUTERS = (items.router,)
# How `python -m backend.synthetic` removes what the proof wrote, statement by statement: $1 are ids as text, $2 is null
# or the time before which the rows of all proofs go. Children first, where one row refers to another.
REMOVE_SYNTHETIC = (
    "DELETE FROM items WHERE synthetic AND (id = ANY ($1::text[]::uuid[]) OR created_at < $2::timestamptz)",
)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Run what the routes need: it is on `app.state` before the first request, and ended after the last one.

    A background task starts before the `yield` and ends after it.
    """
    del cache  # for answers that are asked often: see `backend/cache.py`
    app.state.items = ItemService(database)
    yield
