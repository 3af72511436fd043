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
WHERE status = 'deployed' AND NOT synthetic
ORDER BY environment, service, id DESC
"""


async def running(connection: Connection) -> list[asyncpg.Record]:
    """Return what is running where; synthetic releases are left out."""
    return await connection.fetch(RUNNING)
