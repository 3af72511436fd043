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

__all__ = ["DESCRIPTION", "HOT", "ROUTERS", "TITLE", "running"]

TITLE = "items"
DESCRIPTION = "One resource to begin with."
HOT: tuple[APIRouter, ...] = ()  # the routes that are asked most (see `backend/routing.py`): they are tried first
ROUTERS = (items.router,)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Run what the routes need: it is on `app.state` before the first request, and ended after the last one.

    A background task starts before the `yield` and ends after it.
    """
    del cache  # for answers that are asked often: see `backend/cache.py`
    app.state.items = ItemService(database)
    yield
