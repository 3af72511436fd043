"""The drill: a backup on a server that is thrown away, up to the schema of this release."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from backend.backups.errors import BackupFailed
from backend.backups.restore import restore
from backend.backups.server import MAINTENANCE, Server
from backend.backups.verify import Checked
from backend.rights.names import Names
from backend.rights.statements import identifier, literal

__all__ = ["drill"]

Say = Callable[[str], None]


async def drill(server: Server, checked: Checked, say: Say) -> dict[str, Any]:
    """Restore the backup into the database of the settings, which has nothing yet; return what it has, and its age.

    Raise `BackupFailed` with the first thing that goes wrong.
    """
    if server.serving == MAINTENANCE:
        raise BackupFailed(f"POSTGRES_DB: a drill makes that database, which {MAINTENANCE} cannot be: name another one")
    await _make_owner(server)
    done = await restore(server, checked, server.serving, say, beside=False)
    age = (datetime.now(UTC) - checked.manifest.snapshot).total_seconds()
    return {**done, "age": round(age, 3)}


async def _make_owner(server: Server) -> None:
    """Make the login of the owner, with the password of the settings, where the server does not know it."""
    owner = Names.of(server.owner).owner
    async with server.as_administrator() as connection:
        if await connection.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", owner):
            return
        password = server.variables().get("PGPASSWORD")
        # In its log the server has the statement only where an administrator asked for that: it is thrown away.
        given = f" PASSWORD {literal(password)}" if password else ""
        await connection.execute(f"CREATE ROLE {identifier(owner)} LOGIN{given}")
