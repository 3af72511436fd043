"""What belongs to a database and is in no dump of it: its locale, settings, rights and extensions, made again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import asyncpg

from backend.backups import facts
from backend.backups.errors import BackupFailed
from backend.backups.manifest import Manifest
from backend.backups.server import Server
from backend.rights.names import Names
from backend.rights.roles import ensure, ensure_rights
from backend.rights.statements import identifier, literal

__all__ = ["give_outside", "make_database", "make_extensions", "without_extensions"]

Say = Callable[[str], None]

PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}
LOCALES = {"i": "ICU_LOCALE", "b": "BUILTIN_LOCALE"}


async def make_database(
    connection: asyncpg.Connection[Any], server: Server, manifest: Manifest, database: str, say: Say
) -> None:
    """Make an empty `database` of the owner, with the encoding and the locale that the backup's had."""
    own, owner = manifest.properties, Names.of(server.owner).owner
    made = f"CREATE DATABASE {identifier(database)} OWNER {identifier(owner)} TEMPLATE template0"
    made += f" ENCODING {literal(own.encoding)}"
    locale = (
        f" LOCALE_PROVIDER {PROVIDERS[own.provider]} LC_COLLATE {literal(own.collate)} LC_CTYPE {literal(own.ctype)}"
    )
    if own.locale and own.provider in LOCALES:
        locale += f" {LOCALES[own.provider]} {literal(own.locale)}"
    try:
        await connection.execute(made + locale)
    except (
        asyncpg.WrongObjectTypeError,
        asyncpg.InvalidParameterValueError,
        asyncpg.FeatureNotSupportedError,
    ) as error:
        await connection.execute(made)
        say(f"{database}: has this server's locale, not {own.locale or own.collate} ({error}): text may sort anew")


async def make_extensions(connection: asyncpg.Connection[Any], server: Server, manifest: Manifest) -> None:
    """Make the extensions of the backup, as who may: the owner may not make each of them."""
    for name, schema in manifest.properties.extensions:
        if schema not in ("public", "pg_catalog"):
            owner = identifier(Names.of(server.owner).owner)
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)} AUTHORIZATION {owner}")
        try:
            await connection.execute(f"CREATE EXTENSION {identifier(name)} WITH SCHEMA {identifier(schema)}")
        except asyncpg.PostgresError as error:
            raise BackupFailed(f"{manifest.name}: extension {name} cannot be made here: {error}") from error


def without_extensions(contents: str, manifest: Manifest) -> str:
    """Return the list `contents` of a dump without what `make_extensions` has made."""
    names = "|".join(re.escape(name) for name, _ in manifest.properties.extensions)
    schemas = "|".join(re.escape(schema) for _, schema in manifest.properties.extensions if schema != "public")
    if not names:
        return contents
    made = re.compile(
        rf"\d+; \d+ \d+ (EXTENSION - ({names})|COMMENT - EXTENSION \"?({names})\"?|SCHEMA - ({schemas}))\s"
    )
    return "".join(line for line in contents.splitlines(keepends=True) if not made.match(line))


async def give_outside(server: Server, manifest: Manifest, database: str, say: Say) -> None:
    """Give the restored `database` its roles' rights and its settings, and look whether it has them."""
    async with server.as_administrator(database) as connection:
        given = _Outside(connection, manifest, Names.of(server.owner), database, say)
        await given.roles()
        await given.settings()
        await given.rights()


class _Outside:
    """What `database` gets. `names`: its roles; those of the backup may have had other names."""

    def __init__(
        self, connection: asyncpg.Connection[Any], manifest: Manifest, names: Names, database: str, say: Say
    ) -> None:
        self._connection, self._own, self._names, self._say = connection, manifest.properties, names, say
        self._database = database
        theirs = Names.of(self._own.owner)
        self._ours = dict(zip((theirs.owner, *theirs.others), (names.owner, *names.others), strict=True))
        self._there: set[str] = set()

    async def roles(self) -> None:
        """Give the roles of the service their rights, which no dump brings."""
        superuser = await self._connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if superuser:
            await ensure(self._connection, self._names)
        self._there = {row["rolname"] for row in await self._connection.fetch("SELECT rolname FROM pg_roles")}
        if not superuser and self._there >= {*self._names.others}:
            await ensure_rights(self._connection, self._names)
        elif not superuser:
            self._say(f"{self._database}: only its owner has rights: the service's roles are missing (see `doctor`)")

    async def settings(self) -> None:
        """Set what was set for the database, and for roles in it."""
        wanted = set()
        for role, setting, value in self._own.settings:
            whose = self._ours.get(role, role) if role is not None else None
            if whose is not None and whose not in self._there:
                self._say(f"{self._database}: role {whose} is not on this server: its {setting} was not set")
                continue
            # A list is quoted by PostgreSQL itself, as it is written.
            given = value if setting in LISTS else literal(value)
            database = f"DATABASE {identifier(self._database)}"
            subject = f"ROLE {identifier(whose)} IN {database}" if whose else database
            await self._connection.execute(f"ALTER {subject} SET {_name(setting)} = {given}")
            wanted.add((whose, setting, value))
        now = await facts.properties(self._connection, self._database)
        if missing := wanted - {*now.settings}:
            raise BackupFailed(f"{self._database}: {sorted(missing, key=str)[0][1]} is not set as in the backup")

    async def rights(self) -> None:
        """Give the rights on the database itself, and take those from everybody that it had not."""
        if self._own.rights is None:
            return
        database = f"DATABASE {identifier(self._database)}"
        wanted = {(self._ours.get(role, role), right) for role, right in self._own.rights}
        for right in ("CONNECT", "TEMPORARY"):
            if ("public", right) not in wanted:
                await self._connection.execute(f"REVOKE {right} ON {database} FROM PUBLIC")
        for role, right in sorted(wanted):
            if role not in self._there | {"public"}:
                self._say(f"{self._database}: role {role} is not on this server: its right {right} was not given")
                wanted.remove((role, right))
                continue
            whom = "PUBLIC" if role == "public" else identifier(role)
            await self._connection.execute(f"GRANT {right} ON {database} TO {whom}")
        now = {*((await facts.properties(self._connection, self._database)).rights or ())}
        if wanted - now or {one for one in now - wanted if one[0] == "public"}:
            raise BackupFailed(f"{self._database}: the rights on the database are not those of the backup")


# Settings whose value is a list of names: quoted once more, it would be one name (guc_tables.c, GUC_LIST_QUOTE).
LISTS = frozenset(
    {"search_path", "temp_tablespaces", "session_preload_libraries", "local_preload_libraries"}
)  # fmt: skip


def _name(setting: str) -> str:
    """Return a setting's name, which may have a dot, as SQL has it."""
    return ".".join(identifier(part) for part in setting.split("."))
