"""What the service is about in tests of the pipeline and of the core: notes. See `tests/notes/__init__.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backend import auth, idempotency
from backend.auth import WRITERS_ONLY, WritingCaller
from backend.cache import Cache
from backend.database import Database, DatabaseUnavailable
from backend.identifiers import uuid7
from backend.problems import BodyTooLarge, Problem, responses
from backend.routing import HotRoute

__all__ = ["DESCRIPTION", "HOT", "ROUTERS", "TITLE", "running"]

SUMMARY = "testing-summary"  # the name of the cached answer
COUNT = "SELECT count(*), max(id::text) AS newest FROM testing_notes WHERE NOT synthetic"
FIND = "SELECT id, name, text, tag FROM testing_notes WHERE id = $1"
FIND_NAME = "SELECT id, name, text, tag FROM testing_notes WHERE name = $1"
LIST = "SELECT id, name, text, tag FROM testing_notes WHERE NOT synthetic ORDER BY id DESC LIMIT $1"
INSERT = "INSERT INTO testing_notes (id, text, tag, synthetic) VALUES ($1, $2, $3, $4) RETURNING id, name, text, tag"
UPSERT = """
    INSERT INTO testing_notes (id, name, text, tag, synthetic) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (name) DO UPDATE SET text = excluded.text, tag = excluded.tag
"""


class NoteNotFound(Problem):
    """There is no such note."""

    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such note.")


class NewNote(BaseModel):
    """A note to write."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=1000)]
    tag: Annotated[str, Field(max_length=100)] | None = None


class Note(BaseModel):
    """A written note."""

    id: UUID
    name: str | None
    text: str
    tag: str | None


class Notes(BaseModel):
    """Notes, newest first."""

    items: list[Note]


class Summary(BaseModel):
    """How many notes there are, and the id of the newest."""

    count: int
    newest: str | None


@dataclass(frozen=True, slots=True)
class NoteService:
    """The notes in the database, and their summary in the cache."""

    database: Database
    cache: Cache

    async def create(
        self, note: NewNote, *, synthetic: bool, request: idempotency.Request | None
    ) -> idempotency.Answer:
        """Write `note` once: a repetition of `request` gets the first answer again."""
        async with self.database.lease() as connection, connection.transaction():
            if request and (answer := await idempotency.first_answer(connection, request)):
                return answer
            row = await connection.fetchrow(INSERT, uuid7(), note.text, note.tag, synthetic)
            assert row is not None
            answer = idempotency.Answer(201, Note(**row).model_dump_json().encode())
            if request:
                await idempotency.remember(connection, request, answer)
        if not synthetic:
            await self.cache.forget(SUMMARY)
        return answer

    async def name(self, name: str, note: NewNote, *, synthetic: bool) -> None:
        """Write `note` under `name`."""
        async with self.database.lease() as connection:
            await connection.execute(UPSERT, uuid7(), name, note.text, note.tag, synthetic)
        if not synthetic:
            await self.cache.forget(SUMMARY)

    async def find(self, query: str, key: UUID | str) -> bytes:
        """Return one note as JSON. Raise `NoteNotFound` where there is none."""
        async with self.database.lease() as connection:
            row = await connection.fetchrow(query, key)
        if row is None:
            raise NoteNotFound
        return orjson.dumps(dict(row), default=str)

    async def newest(self, limit: int) -> Notes:
        """Return at most `limit` notes, without the synthetic ones."""
        async with self.database.lease() as connection:
            return Notes(items=[Note(**row) for row in await connection.fetch(LIST, limit)])

    async def retag(self, identity: UUID, tag: str) -> Note:
        """Change the tag of a note. Raise `NoteNotFound` where there is none."""
        query = "UPDATE testing_notes SET tag = $2 WHERE id = $1 RETURNING id, name, text, tag"
        async with self.database.lease() as connection:
            row = await connection.fetchrow(query, identity, tag)
        if row is None:
            raise NoteNotFound
        return Note(**row)

    async def delete(self, column: str, key: UUID | str) -> None:
        """Remove the note whose `column` is `key`. Raise `NoteNotFound` where there is none."""
        query = f"DELETE FROM testing_notes WHERE {column} = $1 RETURNING synthetic"
        async with self.database.lease() as connection:
            synthetic = await connection.fetchval(query, key)
        if synthetic is None:
            raise NoteNotFound
        if not synthetic:
            await self.cache.forget(SUMMARY)

    async def summary(self) -> bytes:
        """Return the `Summary` as JSON, from the cache while it has one."""
        cached = await self.cache.get(SUMMARY)
        if cached.value is not None:
            return cached.value
        async with self.database.lease() as connection:
            row = await connection.fetchrow(COUNT)
        assert row is not None
        answer = Summary(**row).model_dump_json().encode()
        await self.cache.put(SUMMARY, cached, answer)
        return answer


async def _notes(request: Request) -> NoteService:
    service: NoteService = request.app.state.testing_notes
    return service


Service = Annotated[NoteService, Depends(_notes)]
WRITING = (*auth.WRITING, DatabaseUnavailable)
hot = APIRouter(tags=["notes"], route_class=HotRoute)
router = APIRouter(tags=["notes"])
TITLE = "notes of the tests"
DESCRIPTION = "Notes."
HOT = (hot,)
ROUTERS = (router,)


@asynccontextmanager
async def running(app: FastAPI, database: Database, cache: Cache) -> AsyncIterator[None]:
    """Put the notes on `app.state`."""
    app.state.testing_notes = NoteService(database, cache)
    yield


@hot.get("/api/v1/testing-notes/{note_id}", response_model=Note, responses=responses(NoteNotFound, DatabaseUnavailable))
async def read_note(request: Request, note_id: UUID) -> Response:
    """Return one note."""
    notes: NoteService = request.app.state.testing_notes
    return Response(await notes.find(FIND, note_id), media_type="application/json")


@hot.get("/api/v1/testing-summary", response_model=Summary, responses=responses(DatabaseUnavailable))
async def read_summary(request: Request) -> Response:
    """Return how many notes there are."""
    notes: NoteService = request.app.state.testing_notes
    return Response(await notes.summary(), media_type="application/json")


@router.get("/api/v1/testing-notes", responses=responses(DatabaseUnavailable))
async def list_notes(notes: Service, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> Notes:
    """List notes, newest first."""
    return await notes.newest(limit)


@router.post(
    "/api/v1/testing-notes",
    status_code=201,
    response_model=Note,
    responses=responses(*WRITING, BodyTooLarge, idempotency.IdempotencyConflict, idempotency.IdempotencyKeyReused),
)
async def create_note(
    note: NewNote,
    caller: WritingCaller,
    notes: Service,
    request: Request,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Response:
    """Write a note."""
    key = None
    if idempotency_key is not None:
        body = f"{caller.synthetic} {note.model_dump_json()}".encode()
        key = idempotency.Request.of(request.method, request.url.path, idempotency_key, body, owner=caller.owner)
    answer = await notes.create(note, synthetic=caller.synthetic, request=key)
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else None
    return Response(answer.body, answer.status, headers=headers, media_type="application/json")


@router.patch(
    "/api/v1/testing-notes/{note_id}", dependencies=[WRITERS_ONLY], responses=responses(*WRITING, NoteNotFound)
)
async def tag_note(note_id: UUID, tag: Annotated[str, Query(max_length=100)], notes: Service) -> Note:
    """Change the tag of a note."""
    return await notes.retag(note_id, tag)


@router.delete(
    "/api/v1/testing-notes/{note_id}",
    status_code=204,
    dependencies=[WRITERS_ONLY],
    responses=responses(*WRITING, NoteNotFound),
)
async def delete_note(note_id: UUID, notes: Service) -> None:
    """Remove a note."""
    await notes.delete("id", note_id)


@router.get("/testing-notes/{name}", response_model=Note, responses=responses(NoteNotFound, DatabaseUnavailable))
async def read_named_note(name: str, notes: Service) -> Any:
    """Return the note of that name."""
    return Response(await notes.find(FIND_NAME, name), media_type="application/json")


@router.put("/testing-notes/{name}", status_code=204, responses=responses(*WRITING, BodyTooLarge))
async def name_note(name: str, note: NewNote, caller: WritingCaller, notes: Service) -> None:
    """Write the note of that name."""
    await notes.name(name, note, synthetic=caller.synthetic)


@router.delete(
    "/testing-notes/{name}", status_code=204, dependencies=[WRITERS_ONLY], responses=responses(*WRITING, NoteNotFound)
)
async def delete_named_note(name: str, notes: Service) -> None:
    """Remove the note of that name."""
    await notes.delete("name", name)
