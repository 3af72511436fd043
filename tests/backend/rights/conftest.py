"""A database of an owner's own, on the session's server."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest

from backend.rights.names import Names
from tests.services import Services

__all__ = ["OLD", "PASSWORD", "Connection", "Server"]

Connection: TypeAlias = "asyncpg.Connection[Any]"
PASSWORD = "a-password-of-tests"
OLD = """
CREATE TABLE old (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL);
CREATE VIEW olds AS SELECT text FROM old;
CREATE SEQUENCE old_numbers;
CREATE FUNCTION old_answer() RETURNS int LANGUAGE sql RETURN 42;
REVOKE EXECUTE ON FUNCTION old_answer FROM PUBLIC;
CREATE SCHEMA old_place;
CREATE TABLE old_place.things (id int);
"""


@dataclass
class Server:
    """A database of an owner's own, with tables that were made before any role was. `root` is a superuser's session."""

    services: Services
    names: Names
    database: str
    root: Connection

    async def login(self, role: str, password: str = PASSWORD) -> Connection:
        """Return a session of `role`."""
        place: dict[str, Any] = {"host": self.services.postgres_host, "port": self.services.postgres_port}
        session: Connection = await asyncpg.connect(**place, user=role, password=password, database=self.database)
        return session

    @property
    def passwords(self) -> dict[str, str]:
        """A password for each login of the service, and for the owner."""
        return dict.fromkeys((self.names.owner, *self.names.logins), PASSWORD)


@pytest.fixture(name="server")
async def _server(services: Services) -> AsyncIterator[Server]:
    name = f"board-{secrets.token_hex(4)}"
    place: dict[str, Any] = {"host": services.postgres_host, "port": services.postgres_port}
    who: dict[str, Any] = {"user": services.postgres_user, "password": services.postgres_password}
    outside = await asyncpg.connect(**place, **who, database="postgres")
    await outside.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
    await outside.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    root = await asyncpg.connect(**place, **who, database=name)
    await root.execute(f"""
        CREATE SCHEMA closed; CREATE TABLE closed.things (id int);
        GRANT CREATE ON SCHEMA public TO PUBLIC; -- as before PostgreSQL 15
        CREATE FUNCTION closed.secret() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1;
        SET ROLE "{name}"; {OLD} RESET ROLE;
    """)
    names = Names.of(name)
    try:
        yield Server(services, names, name, root)
    finally:
        await root.close()
        await outside.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        for role in (*names.others, name):
            await outside.execute(f'DROP ROLE IF EXISTS "{role}"')
        await outside.close()
