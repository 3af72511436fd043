"""What PostgreSQL says of a database: its tables and their rows, and what is in no dump of it."""

from __future__ import annotations

from typing import Any

import asyncpg

from backend.backups.manifest import Properties, Table

__all__ = ["count_rows", "properties", "revision", "table_bytes", "tables"]

TABLES = """
    SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND relpersistence <> 't' AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
    AND NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
    )
    ORDER BY 1
"""
BYTES = """
    SELECT coalesce(sum(pg_table_size(pg_class.oid)), 0)::bigint
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'm') AND relpersistence <> 't' AND nspname NOT LIKE 'pg\\_%'
"""
DATABASE = """
    SELECT datname, pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,
        datlocprovider::text AS provider, datcollate AS collate, datctype AS ctype,
        to_jsonb(pg_database) ->> CASE WHEN to_jsonb(pg_database) ? 'datlocale'
            THEN 'datlocale' ELSE 'daticulocale' END AS locale
    FROM pg_database WHERE datname = $1
"""
SETTINGS = """
    SELECT rolname AS role, split_part(setting, '=', 1) AS name, substr(setting, strpos(setting, '=') + 1) AS value
    FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
    LEFT JOIN pg_roles ON pg_roles.oid = setrole CROSS JOIN unnest(setconfig) AS setting
    WHERE datname = $1 ORDER BY 1 NULLS FIRST, 2
"""
RIGHTS = """
    SELECT coalesce(rolname, 'public') AS role, privilege_type AS privilege
    FROM pg_database CROSS JOIN aclexplode(datacl) LEFT JOIN pg_roles ON pg_roles.oid = grantee
    WHERE datname = $1 ORDER BY 1, 2
"""
HAS_RIGHTS = "SELECT datacl IS NOT NULL FROM pg_database WHERE datname = $1"
EXTENSIONS = """
    SELECT extname, nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname <> 'plpgsql' ORDER BY 1
"""


async def tables(connection: asyncpg.Connection[Any]) -> list[str]:
    """Return the tables whose rows a dump has: quoted, with their schema."""
    return [row[0] for row in await connection.fetch(TABLES)]


async def table_bytes(connection: asyncpg.Connection[Any]) -> int:
    """Return how large the tables are, without their indexes."""
    size: int = await connection.fetchval(BYTES)
    return size


async def count_rows(connection: asyncpg.Connection[Any], names: list[str]) -> tuple[Table, ...]:
    """Return the tables `names` with their exact rows."""
    counted = []
    for name in names:
        rows = await connection.fetchval(f"SELECT count(*) FROM ONLY {name}", timeout=None)  # noqa: S608 - quoted
        counted.append(Table(name=name, rows=rows))
    return tuple(counted)


async def revision(connection: asyncpg.Connection[Any]) -> str | None:
    """Return the revision of the schema, None where it was never migrated."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return found


async def properties(connection: asyncpg.Connection[Any], database: str) -> Properties:
    """Return what belongs to `database`, to which `connection` leads, and is in no dump of it."""
    facts = await connection.fetchrow(DATABASE, database)
    assert facts is not None
    settings = await connection.fetch(SETTINGS, database)
    rights = await connection.fetch(RIGHTS, database)
    return Properties(
        **{name: facts[name] for name in ("owner", "encoding", "provider", "collate", "ctype", "locale")},
        settings=tuple(tuple(row) for row in settings),
        rights=tuple(tuple(row) for row in rights) if await connection.fetchval(HAS_RIGHTS, database) else None,
        extensions=tuple(tuple(row) for row in await connection.fetch(EXTENSIONS)),
    )
