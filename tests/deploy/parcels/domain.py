"""What a team puts in the place of `backend/domain.py`: parcels, which are handed in and change their status.

Nobody may delete one. What the proof hands in is synthetic, and is hidden from people.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import BaseModel, Field

from backend.auth import WRITERS_ONLY, SeesSynthetic, WritingCaller
from backend.cache import Cache
from backend.database import Database
from backend.problems import Problem

__all__ = ["DESCRIPTION", "HOT", "REMOVE_SYNTHETIC", "ROUTERS", "TITLE", "running"]

TITLE = "parcels"
DESCRIPTION = "Parcels, and where they are."
# The same number again is the same parcel: that makes a repeated request safe.
HAND_IN = """
INSERT INTO parcels (number, status, synthetic) VALUES ($1, 'registered', $2)
ON CONFLICT (number) DO UPDATE SET number = excluded.number RETURNING id, number, status
"""
LIST = """
SELECT id, number, status FROM parcels WHERE NOT synthetic OR $1 ORDER BY id DESC LIMIT $2
"""
REMOVE_SYNTHETIC = (
    "DELETE FROM parcels WHERE synthetic AND (id = ANY ($1::text[]::bigint[]) OR created_at < $2::timestamptz)",
)

router = APIRouter(prefix="/parcels", tags=["parcels"])


class NoSuchParcel(Problem):
    """There is no parcel with this id."""

    status = 404


class NewParcel(BaseModel):
    """A parcel to hand in."""

    number: Annotated[str, Field(pattern=r"^[A-Z]{2}\d{9}[A-Z]{2}$")]


class Change(BaseModel):
    """What became of a parcel."""

    status: str


class Parcel(NewParcel):
    """A parcel."""

    id: int
    status: str


class Parcels(BaseModel):
    """Parcels, newest first."""

    items: list[Parcel]


@router.get("")
async def list_parcels(
    request: Request, synthetic: SeesSynthetic, limit: Annotated[int, Query(ge=1, le=1000)] = 50
) -> Parcels:
    """List parcels, newest first."""
    return Parcels(items=[Parcel(**row) for row in await _fetch(request, LIST, synthetic, limit)])


@router.post("", status_code=201)
async def hand_in(parcel: NewParcel, caller: WritingCaller, request: Request) -> Parcel:
    """Hand in a parcel."""
    return await _one(request, HAND_IN, parcel.number, caller.synthetic)


@router.get("/{ident}")
async def read_parcel(ident: int, request: Request) -> Parcel:
    """Return one parcel."""
    return await _one(request, "SELECT id, number, status FROM parcels WHERE id = $1", ident)


@router.patch("/{ident}", dependencies=[WRITERS_ONLY])
async def change_parcel(ident: int, change: Change, request: Request) -> Parcel:
    """Change the status of a parcel."""
    query = "UPDATE parcels SET status = $2 WHERE id = $1 RETURNING id, number, status"
    return await _one(request, query, ident, change.status)


async def _fetch(request: Request, query: str, *values: Any) -> list[Any]:
    database: Database = request.app.state.database
    async with database.lease() as connection:
        return list(await connection.fetch(query, *values))


async def _one(request: Request, query: str, *values: Any) -> Parcel:
    rows = await _fetch(request, query, *values)
    if not rows:
        raise NoSuchParcel("There is no parcel with this id.")
    return Parcel(**rows[0])


HOT: tuple[APIRouter, ...] = ()
ROUTERS = (router,)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Run what the routes need."""
    del cache  # no answer is asked for often
    app.state.database = database
    yield
