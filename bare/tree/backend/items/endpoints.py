"""`/api/v1/items`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from backend import auth, idempotency
from backend.auth import WRITERS_ONLY, SeesSynthetic, WritingCaller
from backend.database import DatabaseUnavailable
from backend.items.schemas import Item, ItemChange, NewItem, Page
from backend.items.service import CREATED, ItemNotFound, ItemService
from backend.problems import BodyTooLarge, responses

__all__ = ["router"]

LIMIT = 100
NO_CONTENT = 204

router = APIRouter(prefix="/api/v1/items", tags=["items"])
WRITING = (*auth.WRITING, DatabaseUnavailable)


async def _items(request: Request) -> ItemService:
    service: ItemService = request.app.state.items
    return service


Items = Annotated[ItemService, Depends(_items)]
IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$", description="Makes a retry safe for 24 hours"),
]


@router.get("", responses=responses(DatabaseUnavailable))
async def list_items(
    *,
    items: Items,
    synthetic: SeesSynthetic,
    limit: Annotated[int, Query(ge=1, le=LIMIT)] = 50,
    before: Annotated[UUID | None, Query(description="id of the last item of the previous page")] = None,
) -> Page:
    """List items, newest first, in pages."""
    return await items.page(before=before, limit=limit, synthetic=synthetic)


@router.get("/{item_id}", responses=responses(ItemNotFound, DatabaseUnavailable))
async def read_item(item_id: UUID, items: Items) -> Item:
    """Return one item."""
    return await items.get(item_id)


@router.post(
    "",
    status_code=CREATED,
    response_model=Item,
    responses=responses(*WRITING, BodyTooLarge, idempotency.IdempotencyConflict, idempotency.IdempotencyKeyReused),
)
async def create_item(
    item: NewItem, caller: WritingCaller, items: Items, request: Request, idempotency_key: IdempotencyKey = None
) -> Response:
    """Keep an item."""
    key = None
    if idempotency_key is not None:
        # Only what was sent: the next release may know more fields, and must know the request again.
        body = f"{caller.synthetic} {item.model_dump_json(exclude_unset=True)}".encode()
        key = idempotency.Request.of(request.method, request.url.path, idempotency_key, body, owner=caller.owner)
    answer = await items.create(item, synthetic=caller.synthetic, request=key)
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers=headers, media_type="application/json")


@router.patch("/{item_id}", dependencies=[WRITERS_ONLY], responses=responses(*WRITING, ItemNotFound, BodyTooLarge))
async def change_item(item_id: UUID, change: ItemChange, items: Items) -> Item:
    """Give an item another name."""
    return await items.change(item_id, change)


@router.delete(
    "/{item_id}", status_code=NO_CONTENT, dependencies=[WRITERS_ONLY], responses=responses(*WRITING, ItemNotFound)
)
async def delete_item(item_id: UUID, items: Items) -> None:
    """Remove an item."""
    await items.delete(item_id)
