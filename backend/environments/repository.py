"""The SQL of environments."""

from __future__ import annotations

import asyncpg

from backend.database import Connection

__all__ = ["running"]

# One row per environment and service: its newest deployed release. releases_running_idx has exactly these, in order.
RUNNING = """
SELECT DISTINCT ON (environment, service)
    environment, service, version, commit, url, id AS release_id, updated_at AS since
FROM releases
WHERE status = 'deployed' AND {}
ORDER BY environment, service, id DESC
"""


async def running(connection: Connection, *, synthetic: bool) -> list[asyncpg.Record]:
    """Return what is running where; without `synthetic`, what the proof wrote is left out."""
    return await connection.fetch(RUNNING.format("TRUE" if synthetic else "NOT synthetic"))
