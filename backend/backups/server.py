"""The ways to PostgreSQL: as the owner, and as who may make and rename databases."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from backend.backups.errors import BackupFailed
from backend.backups.programs import environment
from backend.backups.settings import BackupSettings
from backend.exclusion import holders_of
from backend.postgres import Connector, connect_once
from backend.rights.statements import identifier, literal
from backend.settings import Settings

__all__ = ["MAINTENANCE", "Server", "checked_name", "mark", "marks", "pointed"]

SECONDS = 10.0
MAINTENANCE = "postgres"
OWN = "restores"  # in the comment of a database that a restore or a swap has dealt with
# The pipeline's name and an r, in ASCII: who restores, swaps or drops databases here does so alone.
LOCK_KEY = 0x736C_6970_7761_7972
DATABASE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
PATIENT = {"statement_timeout": "0", "lock_timeout": "0", "idle_session_timeout": "0"}
# A comment, as a setting of the database would need a superuser.
COMMENT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"
MAY = "SELECT rolsuper AS super, rolcreatedb AS creates FROM pg_roles WHERE rolname = current_user"


@dataclass(frozen=True)
class Server:
    """The server of the settings. `owner` is the login that owns the service's tables, `serving` the database."""

    settings: Settings
    own: BackupSettings

    @property
    def owner(self) -> str:
        """The login of the owner."""
        return self._named("PGUSER", "a user")

    @property
    def serving(self) -> str:
        """The database that serves."""
        return self._named("PGDATABASE", "a database")

    def variables(self, database: str | None = None) -> dict[str, str]:
        """Return what leads PostgreSQL's programs to `database`, as the owner."""
        return environment(self._connector().address, name=f"{self.settings.project_name}-restore", database=database)

    @asynccontextmanager
    async def as_owner(self, database: str) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Yield the owner's session in `database`."""
        connection = await connect_once(self._connector().elsewhere(database=database))
        try:
            yield connection
        finally:
            await connection.close(timeout=SECONDS)

    @asynccontextmanager
    async def as_administrator(self, database: str = MAINTENANCE) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Yield a session in `database` of the superuser where there is one, else of the owner."""
        connection = await connect_once(self._administrator(database))
        try:
            yield connection
        finally:
            await connection.close(timeout=SECONDS)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """Yield an administrator's session, with which nobody else restores or swaps here meanwhile.

        Raise `BackupFailed` where somebody does, or where that role may not make databases.
        """
        async with self.as_administrator() as connection:
            may = await connection.fetchrow(MAY)
            if may is None or not (may["super"] or may["creates"]):
                raise BackupFailed(
                    f"role {self.owner} may not create databases: set POSTGRES_SUPERUSER and its password, or let an"
                    f" administrator run `ALTER ROLE {identifier(self.owner)} CREATEDB`"
                )
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
                pids = ", ".join(str(one.pid) for one in await holders_of(connection, LOCK_KEY))
                raise BackupFailed(f"another restore or swap runs on this server (pid {pids}): wait until it has ended")
            yield connection

    def _named(self, variable: str, what: str) -> str:
        name = self.variables().get(variable)
        if not name:
            raise BackupFailed(f"{self._connector().source}: must name {what} for a restore")
        return name

    def _connector(self) -> Connector:
        session = {"application_name": f"{self.settings.project_name}-restore", **PATIENT}
        return Connector(self.settings, session, seconds=SECONDS, migrating=True)

    def _administrator(self, database: str) -> Connector:
        if self.own.postgres_superuser is None:
            return self._connector().elsewhere(database=database)
        secret = self.own.postgres_superuser_password
        password = secret.get_secret_value() if secret else ""  # none, for a socket that asks for none
        return self._connector().elsewhere(database=database, user=self.own.postgres_superuser, password=password)


async def marks(connection: asyncpg.Connection[Any], database: str) -> dict[str, Any]:
    """Return what restores and swaps have written to `database`. `comment`: what somebody else had."""
    text = await connection.fetchval(COMMENT, database)
    try:
        found = json.loads(text or "{}")[OWN]
    except (ValueError, KeyError, TypeError):
        return {"comment": text} if text else {}
    return dict(found)


async def mark(connection: asyncpg.Connection[Any], database: str, **changed: Any) -> None:
    """Write `changed` to `database`, for `marks` to find; what is None is taken away."""
    all_of_them = {**await marks(connection, database), **changed}
    written = json.dumps({OWN: {name: value for name, value in all_of_them.items() if value is not None}})
    await connection.execute(f"COMMENT ON DATABASE {identifier(database)} IS {literal(written)}")


def checked_name(name: str) -> str:
    """Return `name`. Raise `BackupFailed` where no database of ours would have it."""
    if not DATABASE_NAME.fullmatch(name):
        raise BackupFailed(f"`{name}` is no name for a database: give it 1 to 63 letters, digits, _ and -, no - first")
    return name


def pointed(settings: Settings, database: str) -> Settings:
    """Return `settings` of another `database` on the same server."""
    changed: dict[str, Any] = {"postgres_db": database}
    for name in ("database_url", "migration_database_url"):
        with contextlib.suppress(AttributeError):
            parts = urlsplit(getattr(settings, name).get_secret_value())
            changed[name] = SecretStr(urlunsplit(parts._replace(path=f"/{quote(database, safe='')}")))
    return settings.model_copy(update=changed)
