"""Migrations outside a transaction: a single CONCURRENTLY statement, or a table's rows in batches."""

from __future__ import annotations

import re
from collections.abc import Callable

import asyncpg
from alembic import op
from alembic.script import Script
from sqlalchemy import Connection, text

from backend.migrations.batches import in_batches
from backend.migrations.connection import LOCK_TIMEOUT, STATEMENT_TIMEOUT, MigrationFailed, open_session
from backend.migrations.plan import render
from backend.settings import Settings

__all__ = ["leftovers", "stand_alone"]

BUILT_INDEX = re.compile(
    r'CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")+"|[a-z_][\w$]*)',
    re.IGNORECASE,
)
# Those that wait for every older transaction of the database, and block no read or write of anybody meanwhile.
PATIENT = re.compile(r"\b(?:INDEX\s+CONCURRENTLY|REINDEX|DETACH\s+PARTITION)\b", re.IGNORECASE)
LEFT = """
    SELECT format('index %s is left, invalid, ', name) || CASE
        WHEN name = to_regclass($1) THEN 'and the next try drops it first'
        ELSE format('until `DROP INDEX CONCURRENTLY %s`', name) END
    FROM (SELECT indexrelid::regclass AS name FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE NOT indisvalid AND relkind = 'i'
        AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index)) AS index
    UNION ALL
    SELECT format('partition %s is half detached, until `ALTER TABLE %s DETACH PARTITION %1$s FINALIZE`',
        inhrelid::regclass, inhparent::regclass)
    FROM pg_inherits WHERE inhdetachpending
"""
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass({})"


def stand_alone(script: Script, seconds: float) -> None:
    """Make a `script` with `transactional = False` in its module run outside a transaction, and afresh after a failure.

    Its statement may take as long as all migrations together: `seconds`. Raise `MigrationFailed` where it is neither
    one `CONCURRENTLY` statement nor one call of `in_batches`: the first would stay if the second failed.
    """
    if getattr(script.module, "transactional", True):
        return
    try:
        statements = render(script)
    except Exception:  # noqa: BLE001 - code that needs a connection
        statements = []
    batched = in_batches.__name__ in script.module.upgrade.__code__.co_names
    if len(statements) != 1 or not (batched or "CONCURRENTLY" in statements[0].upper()):
        raise MigrationFailed(
            f"{script.revision}: with `transactional = False` it must be one CONCURRENTLY statement, or one"
            " `in_batches`; split it"
        )
    if batched:
        vars(script.module)["upgrade"] = _autocommitting(script.module.upgrade)
        return
    vars(script.module)["upgrade"] = _concurrently(script.revision, statements[0], seconds, script.module.upgrade)


def _autocommitting(inner: Callable[[], None]) -> Callable[[], None]:
    def alone() -> None:
        with op.get_context().autocommit_block():
            inner()

    return alone


def _concurrently(revision: str, statement: str, seconds: float, inner: Callable[[], None]) -> Callable[[], None]:
    index = BUILT_INDEX.search(statement)

    def alone() -> None:
        migration = op.get_context()
        with migration.autocommit_block():
            connection = migration.connection
            assert connection is not None
            _set_timeouts(connection, f"{seconds:.0f}s", "0" if PATIENT.search(statement) else LOCK_TIMEOUT)
            valid = _is_valid(connection, index[1]) if index else None
            if index and valid is False:
                connection.execute(text(f"DROP INDEX CONCURRENTLY {index[1]}"))
            if index and valid and "IF NOT EXISTS" not in index[0].upper():
                raise MigrationFailed(
                    f"{revision}: index {index[1]} exists already: if an earlier try of this migration built it,"
                    " write IF NOT EXISTS"
                )
            inner()
            _set_timeouts(connection, STATEMENT_TIMEOUT, LOCK_TIMEOUT)

    return alone


def _set_timeouts(connection: Connection, statement: str, lock: str) -> None:
    connection.execute(text(f"SET statement_timeout = '{statement}'"))
    connection.execute(text(f"SET lock_timeout = '{lock}'"))


def _is_valid(connection: Connection, index: str) -> bool | None:
    """Return whether the index of that name is valid, None where there is none."""
    # One that is left over from a failed build is not: it costs writes and serves no read.
    valid: bool | None = connection.execute(text(VALID.format(":name")), {"name": index}).scalar()
    return valid


async def leftovers(settings: Settings, sql: str) -> str:
    """Return what a failed migration has left, with the way out; empty where it cannot have left anything."""
    if "CONCURRENTLY" not in sql.upper():
        return ""
    index = BUILT_INDEX.search(sql)
    try:
        connection = await open_session(settings)
        try:
            rows = await connection.fetch(LEFT, index[1] if index else "pg_class")
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return "an invalid index may be left (`nox -s doctor` lists it)"
    return "; ".join(row[0] for row in rows)
