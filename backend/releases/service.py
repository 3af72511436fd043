"""The rules of releases."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import orjson

from backend import idempotency
from backend.cache import Cache
from backend.database import Database
from backend.environments.service import ENVIRONMENTS
from backend.identifiers import uuid7
from backend.problems import FieldError, InvalidRequest, Problem
from backend.releases import repository
from backend.releases.schemas import NewRelease, Page, Release, ReleaseChange

__all__ = ["ReleaseNotFound", "ReleaseService"]

CREATED = 201


class ReleaseNotFound(Problem):
    """There is no release with this id."""

    status = 404

    def __init__(self) -> None:
        super().__init__("There is no release with this id.")


@dataclass(frozen=True, slots=True)
class ReleaseService:
    """Releases in PostgreSQL. A change to the board ends the cached answer that was made from it."""

    database: Database
    cache: Cache

    async def create(
        self, release: NewRelease, *, synthetic: bool, request: idempotency.Request | None
    ) -> idempotency.Answer:
        """Record `release` once: a repetition of `request` gets the first answer again."""
        async with self.database.lease() as connection, connection.transaction():
            if request and (answer := await idempotency.first_answer(connection, request)):
                return answer
            row = await repository.insert(connection, uuid7(), release, synthetic=synthetic)
            answer = idempotency.Answer(CREATED, Release(**row).model_dump_json().encode())
            if request:
                await idempotency.remember(connection, request, answer)
        if not synthetic:
            await self.cache.forget(ENVIRONMENTS)
        return answer

    async def get(self, identity: UUID) -> bytes:
        """Return the release with this id as JSON (`Release`). Raise `ReleaseNotFound` where there is none."""
        # Straight from the row: a model costs 10 µs.
        async with self.database.lease() as connection:
            row = await repository.find(connection, identity)
        if row is None:
            raise ReleaseNotFound
        return orjson.dumps(dict(row), default=str, option=orjson.OPT_UTC_Z)  # its UUIDs are a subclass

    async def page(self, filters: Mapping[str, str], *, cursor: str | None, limit: int, synthetic: bool) -> Page:
        """Return `limit` releases after `cursor`, newest first, and with `synthetic` also those of the proof.

        Raise `InvalidRequest` for a cursor not made here.
        """
        before = _read_cursor(cursor) if cursor else None
        async with self.database.lease() as connection:
            rows = await repository.newest(connection, filters, before=before, limit=limit + 1, synthetic=synthetic)
        items = [Release(**row) for row in rows[:limit]]
        return Page(items=items, next_cursor=_cursor(items[-1].id) if len(rows) > limit else None)

    async def change(self, identity: UUID, change: ReleaseChange) -> Release:
        """Apply `change` to a release. Raise `ReleaseNotFound` where there is none."""
        changes = change.model_dump(exclude_unset=True)
        async with self.database.lease() as connection:
            row = await repository.update(connection, identity, changes)
        if row is None:
            raise ReleaseNotFound
        if not row["synthetic"]:
            await self.cache.forget(ENVIRONMENTS)
        return Release(**row)

    async def delete(self, identity: UUID) -> None:
        """Delete a release. Raise `ReleaseNotFound` where there is none."""
        async with self.database.lease() as connection:
            synthetic = await repository.delete(connection, identity)
        if synthetic is None:
            raise ReleaseNotFound
        if not synthetic:
            await self.cache.forget(ENVIRONMENTS)


def _cursor(identity: UUID) -> str:
    return base64.urlsafe_b64encode(identity.bytes).decode().rstrip("=")


def _read_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.b64decode(f"{cursor}==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        errors = [FieldError(location="query.cursor", message="Use the next_cursor of a page unchanged")]
        raise InvalidRequest("The cursor is not valid.", errors=errors) from None
