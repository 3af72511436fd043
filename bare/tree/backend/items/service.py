"""The rules of items, and their SQL."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backend import idempotency
from backend.database import Database
from backend.identifiers import uuid7
from backend.items.schemas import Item, ItemChange, NewItem, Page
from backend.problems import Problem

__all__ = ["CREATED", "ItemNotFound", "ItemService"]

CREATED = 201
INSERT = "INSERT INTO items (id, name, synthetic) VALUES ($1, $2, $3) RETURNING id, name, created_at"
FIND = "SELECT id, name, created_at FROM items WHERE id = $1"
# What the proof of a deploy writes is in no list but the proof's own ($3).
NEWEST = """
SELECT id, name, created_at FROM items
WHERE ($3 OR NOT synthetic) AND ($1::uuid IS NULL OR id < $1) ORDER BY id DESC LIMIT $2
"""
UPDATE = "UPDATE items SET name = $2 WHERE id = $1 RETURNING id, name, created_at"
DELETE = "DELETE FROM items WHERE id = $1 RETURNING id"


class ItemNotFound(Problem):
    """There is no item with this id."""

    status = 404

    def __init__(self) -> None:
        super().__init__("There is no item with this id.")


@dataclass(frozen=True, slots=True)
class ItemService:
    """Items in PostgreSQL."""

    database: Database

    async def create(
        self, item: NewItem, *, synthetic: bool, request: idempotency.Request | None
    ) -> idempotency.Answer:
        """Keep `item` once: a repetition of `request` gets the first answer again."""
        async with self.database.lease() as connection, connection.transaction():
            if request and (answer := await idempotency.first_answer(connection, request)):
                return answer
            row = await connection.fetchrow(INSERT, uuid7(), item.name, synthetic)
            assert row is not None
            answer = idempotency.Answer(CREATED, Item(**row).model_dump_json().encode())
            if request:
                await idempotency.remember(connection, request, answer)
        return answer

    async def get(self, identity: UUID) -> Item:
        """Return the item with this id. Raise `ItemNotFound` where there is none."""
        return await self._one(FIND, identity)

    async def page(self, *, before: UUID | None, limit: int, synthetic: bool) -> Page:
        """Return at most `limit` items that are older than the one with the id `before`, newest first."""
        async with self.database.lease() as connection:
            return Page(items=[Item(**row) for row in await connection.fetch(NEWEST, before, limit, synthetic)])

    async def change(self, identity: UUID, change: ItemChange) -> Item:
        """Apply `change` to an item. Raise `ItemNotFound` where there is none."""
        return await self._one(UPDATE, identity, change.name)

    async def delete(self, identity: UUID) -> None:
        """Delete an item. Raise `ItemNotFound` where there is none."""
        async with self.database.lease() as connection:
            if await connection.fetchval(DELETE, identity) is None:
                raise ItemNotFound

    async def _one(self, statement: str, *values: object) -> Item:
        async with self.database.lease() as connection:
            row = await connection.fetchrow(statement, *values)
        if row is None:
            raise ItemNotFound
        return Item(**row)
