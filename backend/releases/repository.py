"""The SQL of releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from backend.database import Connection
from backend.releases.schemas import NewRelease

__all__ = ["delete", "find", "insert", "newest", "update"]

COLUMNS = "id, service, environment, version, status, commit, url, notes, created_at, updated_at"
FIND = f"SELECT {COLUMNS} FROM releases WHERE id = $1"  # noqa: S608 - our own constant
INSERT = f"""
INSERT INTO releases (id, service, environment, version, status, commit, url, notes, synthetic)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
RETURNING {COLUMNS}
"""  # noqa: S608 - our own constant
DELETE = "DELETE FROM releases WHERE id = $1 RETURNING synthetic"


async def insert(connection: Connection, identity: UUID, release: NewRelease, *, synthetic: bool) -> asyncpg.Record:
    """Store `release` and return its row."""
    row = await connection.fetchrow(
        INSERT, identity, release.service, release.environment, release.version, release.status, release.commit,
        release.url, release.notes, synthetic,
    )  # fmt: skip
    assert row is not None
    return row


async def find(connection: Connection, identity: UUID) -> asyncpg.Record | None:
    """Return the release with this id, synthetic or not."""
    return await connection.fetchrow(FIND, identity)


async def newest(
    connection: Connection, filters: Mapping[str, str], *, before: UUID | None, limit: int, synthetic: bool
) -> list[asyncpg.Record]:
    """Return at most `limit` releases, newest first, older than the one with the id `before`.

    `filters`: column → value. Without `synthetic`, what the proof wrote is not among them.
    """
    conditions = ["TRUE" if synthetic else "NOT synthetic"]
    values: list[Any] = []
    for column, value in filters.items():
        values.append(value)
        conditions.append(f"{column} = ${len(values)}")
    if before is not None:
        values.append(before)
        conditions.append(f"id < ${len(values)}")
    values.append(limit)
    # The columns are our own names, the values are $n.
    where = " AND ".join(conditions)
    query = f"SELECT {COLUMNS} FROM releases WHERE {where} ORDER BY id DESC LIMIT ${len(values)}"  # noqa: S608
    return await connection.fetch(query, *values)


async def update(connection: Connection, identity: UUID, changes: Mapping[str, str | None]) -> asyncpg.Record | None:
    """Set the columns of `changes` and return the row with `synthetic`, or None if there is no such release."""
    columns = ", ".join(f"{column} = ${position}" for position, column in enumerate(changes, start=2))
    # The columns are fields of a model, the values are $n.
    query = f"UPDATE releases SET {columns}, updated_at = now() WHERE id = $1 RETURNING {COLUMNS}, synthetic"  # noqa: S608
    return await connection.fetchrow(query, identity, *changes.values())


async def delete(connection: Connection, identity: UUID) -> bool | None:
    """Delete the release and return whether it was synthetic, or None if there is no such release."""
    synthetic: bool | None = await connection.fetchval(DELETE, identity)
    return synthetic
