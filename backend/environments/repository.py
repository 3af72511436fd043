"""The SQL of environments."""

from __future__ import annotations

import asyncpg

from backend.database import Connection

__all__ = ["running"]

# One row for each service and environment, the newest deployed one. releases_running_idx has just these, in order.
RUNNING = """
SELECT DISTINCT ON (environment, service)
    environment, service, version, commit, url, id AS release_id, updated_at AS since
FROM releases
WHERE status = 'deployed' AND NOT synthetic
ORDER BY environment, service, id DESC
"""


async def running(connection: Connection) -> list[asyncpg.Record]:
    """What runs where now; synthetic releases never."""
    return await connection.fetch(RUNNING)
