"""What a team puts in the place of the release board: notes, one route that reads and one that writes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from backend.auth import ServiceCaller
from backend.database import Database
from backend.problems import Problem

__all__ = ["Notes", "router"]

WRITE = """
    INSERT INTO notes (name, text, synthetic) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET text = excluded.text
"""


class NoSuchNote(Problem):
    """There is no note of that name."""

    status = 404


class Note(BaseModel):
    """A note."""

    text: Annotated[str, Field(max_length=1000)]


class Notes:
    """The notes in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def read(self, name: str) -> Any:
        """The text of the note NAME, None where there is none."""
        async with self.database.lease() as connection:
            return await connection.fetchval("SELECT text FROM notes WHERE name = $1", name)

    async def write(self, name: str, text: str, *, synthetic: bool) -> None:
        """Keep a note."""
        async with self.database.lease() as connection:
            await connection.execute(WRITE, name, text, synthetic)

    async def forget(self, name: str) -> None:
        """Remove a note."""
        async with self.database.lease() as connection:
            await connection.execute("DELETE FROM notes WHERE name = $1", name)


router = APIRouter(prefix="/notes", tags=["notes"])


@router.get("/{name}")
async def read_note(name: str, request: Request) -> Note:
    """One note; a welcome where nobody wrote one."""
    text = await request.app.state.notes.read(name)
    if text is None and name != "welcome":
        raise NoSuchNote("There is no note of that name.")
    return Note(text=text or "write something")


@router.api_route("/{name}", methods=["PUT", "DELETE"], status_code=204)
async def write_note(name: str, request: Request, caller: ServiceCaller, note: Note | None = None) -> Response:
    """Write a note, or remove it."""
    notes: Notes = request.app.state.notes
    if note is None:
        await notes.forget(name)
    else:
        await notes.write(name, note.text, synthetic=caller.synthetic)
    return Response(status_code=204)
