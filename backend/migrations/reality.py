"""What only the real database knows of a migration: how many rows it locks, and what its role may not do there.

Nothing is changed, and no table is locked for longer than a question takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from backend.migrations.connection import reason
from backend.migrations.named import extensions_of, roles_made, roles_of, tables_of
from backend.migrations.plan import Planned
from backend.migrations.statements import Write

__all__ = ["locked_rows", "obstacles"]

DENIED = "42501"  # insufficient_privilege
FOREIGN = """
    SELECT pg_get_userbyid(relowner) FROM pg_class
    WHERE oid = to_regclass(:name) AND NOT pg_has_role(relowner, 'USAGE')
"""
ROLE = "SELECT true FROM pg_roles WHERE rolname = :name"
INSTALLED = "SELECT true FROM pg_extension WHERE extname = :name"
MAY_INSTALL = """
    SELECT current_setting('is_superuser')::boolean
        OR (bool_or(trusted) AND has_database_privilege(current_database(), 'CREATE'))
    FROM pg_available_extension_versions WHERE name = :name HAVING count(*) > 0
"""


def obstacles(connection: Connection, step: Planned, pending: str) -> list[str]:
    """Return what stops a migration here, whatever its rehearsal says, one line each with its fix.

    `pending` is the SQL of all that the database lacks, which may make what this one needs.
    """
    role = str(connection.execute(text("SELECT current_user")).scalar())
    found = [
        *_extensions(connection, extensions_of(step.sql), role),
        *_roles(connection, roles_of(step.sql) - roles_made(pending)),
        *_rights(connection, step, role),
    ]
    return [f"migration {step.revision} ({step.message}) {problem}" for problem in found]


def _extensions(connection: Connection, names: set[str], role: str) -> Iterator[str]:
    for name in sorted(names):
        if connection.execute(text(INSTALLED), {"name": name}).scalar():
            continue
        may = connection.execute(text(MAY_INSTALL), {"name": name}).scalar()
        if may is None:
            yield f"needs the extension {name}, which this PostgreSQL server does not offer: install it there"
        elif not may:
            yield (
                f"makes the extension {name}, which {role} may not: `CREATE EXTENSION {name}` in this database as its"
                " administrator, once; with IF NOT EXISTS the migration then finds it"
            )


def _roles(connection: Connection, names: set[str]) -> Iterator[str]:
    for name in sorted(names):
        if not connection.execute(text(ROLE), {"name": name}).scalar():
            yield (
                f"names the role {name}, which this server does not have: `CREATE ROLE {name}` there as its"
                " administrator, or correct the name"
            )


def _rights(connection: Connection, step: Planned, role: str) -> Iterator[str]:
    for name in sorted(tables_of(step.sql)):
        owner = connection.execute(text(FOREIGN), {"name": name}).scalar()
        if owner:
            yield (
                f"changes {name}, which belongs to {owner}, so {role} may not: `ALTER TABLE {name} OWNER TO {role}` as"
                f" {owner} or an administrator"
            )
    for write in step.writes:
        _, denied = _explain(connection, write.sql)
        if denied:
            yield f"may not {write.what}: {denied}; `GRANT` it to {role} as an administrator"


def locked_rows(connection: Connection, write: Write) -> int | None:
    """Return about how many rows `write` locks, as PostgreSQL itself estimates; None if that is unknown.

    Where it needs what an earlier migration only makes, all rows of its table count.
    """
    plan, _ = _explain(connection, write.sql)
    if plan:
        return sum(int(one["Plan Rows"]) for one in plan.get("Plans", ()))
    table, _ = _explain(connection, f"SELECT FROM {write.table}")
    return int(table["Plan Rows"]) if table else None


def _explain(connection: Connection, sql: str) -> tuple[dict[str, Any] | None, str]:
    """Return PostgreSQL's plan of a statement, which is not run; and what it is denied."""
    try:
        said: Any = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {sql}").scalar()
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None)
        denied = reason(error) if getattr(cause, "sqlstate", "") == DENIED else ""
        connection.rollback()
        return None, denied
    connection.rollback()
    plan = json.loads(said) if isinstance(said, str) else said
    return plan[0]["Plan"], ""
