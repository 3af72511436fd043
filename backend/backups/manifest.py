"""What a backup says of itself: `manifest.json`, written last, never encrypted, without a secret."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from backend.backups.errors import BackupFailed

__all__ = ["MANIFEST", "SCHEMA", "Manifest", "Properties", "StoredFile", "Table", "new_name", "read", "time_of"]

MANIFEST = "manifest.json"
SCHEMA: Literal[1] = 1
NAME = r"\d{8}T\d{6}Z-[0-9a-f]{6}"
TIME = "%Y%m%dT%H%M%SZ"
# Of pg_dump's folder, with `.age` where it is encrypted. Nothing that could lead out of it.
PATH = r"[A-Za-z0-9_][A-Za-z0-9_.]{0,99}"


class _Part(BaseModel):
    """A part of a manifest. A newer one of the same schema may have more."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Table(_Part):
    """A table, by its name with the schema, and its rows."""

    name: str
    rows: int = Field(ge=0)


class Shrunken(Table):
    """A table that had more than twice as many rows in the backup `before`."""

    before: int


class StoredFile(_Part):
    """A file as it is stored: of an encrypted one, of the encrypted bytes."""

    path: Annotated[str, StringConstraints(pattern=f"^{PATH}$")]
    bytes: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class Properties(_Part):
    """What belongs to the database and is in no dump of it."""

    owner: str
    encoding: str
    provider: str  # of its locale: `c` (libc), `i` (ICU), `b` (builtin)
    collate: str
    ctype: str
    locale: str | None
    settings: tuple[tuple[str | None, str, str], ...]  # role or None, name, value
    rights: tuple[tuple[str, str], ...] | None  # who (`public`: everybody), what; None: as PostgreSQL gives them
    extensions: tuple[tuple[str, str], ...]  # name, schema


class Manifest(_Part):
    """A backup: what it is of, when and by what it was made, and what it consists of."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema", default=SCHEMA)
    name: Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
    started: datetime
    finished: datetime
    project: str
    environment: str
    release: str
    revision: str | None
    database: str
    server: str
    programs: str
    compression: Literal["zstd", "gzip"]
    encrypted: tuple[str, ...]  # the recipients; empty: not encrypted
    snapshot: datetime
    tables: tuple[Table, ...]
    shrunken: tuple[Shrunken, ...] = ()
    properties: Properties
    bytes: int
    files: tuple[StoredFile, ...]

    @property
    def rows(self) -> int:
        """All rows of all tables."""
        return sum(table.rows for table in self.tables)

    def text(self) -> str:
        """Return what is in the file."""
        return self.model_dump_json(by_alias=True, indent=1) + "\n"

    def summary(self, *, here: bool, away: bool) -> dict[str, Any]:
        """Return it as JSON can have it, without the files, and where it is."""
        return {**self.model_dump(mode="json", by_alias=True, exclude={"files"}), "here": here, "away": away}


def new_name(now: datetime) -> str:
    """Return the name of a backup that begins `now`."""
    return f"{now.astimezone(UTC):{TIME}}-{secrets.token_hex(3)}"


def time_of(name: str) -> datetime:
    """Return when the backup `name` began. Raise `BackupFailed` where it is no name of a backup."""
    if not re.fullmatch(NAME, name):
        raise BackupFailed(
            f"`{name}` is no name of a backup: they look like 20261128T160000Z-4fa01c; `list` shows them"
        )
    try:
        return datetime.strptime(name.partition("-")[0], TIME).replace(tzinfo=UTC)
    except ValueError:
        raise BackupFailed(f"`{name}` is no name of a backup: its time is none") from None


def read(folder: Path) -> Manifest:
    """Return the manifest in `folder`. Raise `BackupFailed` where there is none that could be right."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise BackupFailed(f"{folder.name} has no {MANIFEST}: it is no whole backup; use another one") from None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = "a newer release made it, restore with that one" if where == "schema" else "use another backup"
        raise BackupFailed(
            f"{folder.name}: its {MANIFEST} cannot be read ({where + ': ' if where else ''}{first['msg']}): {hint}"
        ) from None
    if manifest.name != folder.name:
        raise BackupFailed(f"{folder.name}: its {MANIFEST} is of {manifest.name}: it was moved or tampered with")
    return manifest
