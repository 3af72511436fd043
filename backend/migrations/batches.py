"""Changes of a large table: rows in batches, each in a transaction of its own, with pauses, and resumed where it ended.

from backend.migrations.batches import in_batches

transactional = False


def upgrade() -> None:
    in_batches("orders", "number", "UPDATE orders SET cents = 0 WHERE cents IS NULL AND {batch}")
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from alembic import context, op
from sqlalchemy import Connection, CursorResult, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only

__all__ = ["in_batches"]

SIZE = 1000
TRIES = 5
BUSY = ("55P03", "40P01")  # lock_not_available, deadlock_detected: somebody else writes these rows now
PAUSE_SECONDS = 0.01
REPORT_SECONDS = 5.0
# Dropped in the transaction that records the migration: see `history.record`.
TABLE = "CREATE TABLE IF NOT EXISTS alembic_batches (statement text PRIMARY KEY, done text NOT NULL)"
KIND = "SELECT pg_typeof({key})::text FROM {table} LIMIT 1"
END = """
    SELECT batch.key::text AS ended FROM (SELECT {key} AS key FROM {table} WHERE {after} ORDER BY {key} LIMIT {size})
    AS batch ORDER BY batch.key DESC LIMIT 1
"""
DONE = """
    INSERT INTO alembic_batches VALUES (:statement, :done)
    ON CONFLICT (statement) DO UPDATE SET done = excluded.done
"""


def in_batches(table: str, key: str, statement: str, *, size: int = SIZE) -> None:
    """Run `statement` on all rows of `table`, `size` of them at a time in the order of `key`, a unique column.

    `{batch}` in the statement is the condition of one batch. Each is committed together with where it ended, so that a
    later try goes on from there. After each comes a pause as long as it took.
    """
    if "{batch}" not in statement:
        raise ValueError("in_batches: its statement needs {batch}, the condition of one batch")
    migration = op.get_context()
    if migration.as_sql:
        op.execute(statement.replace("{batch}", f"{key} > '…' AND {key} <= '…'"))
        return
    assert migration.connection is not None
    report: Callable[[str], None] = context.config.attributes["report"]
    _Walk(migration.connection, table, key, statement, size).run(report)


class _Walk:
    def __init__(self, connection: Connection, table: str, key: str, statement: str, size: int) -> None:
        self.connection, self.table, self.key, self.statement, self.size = connection, table, key, statement, size

    def run(self, report: Callable[[str], None]) -> None:
        self._do(TABLE)
        kind = self._do(KIND.format(key=self.key, table=self.table)).scalar()
        done = self._do("SELECT done FROM alembic_batches WHERE statement = :it", it=self.statement).scalar()
        begun, said, changed = time.monotonic(), time.monotonic(), 0
        if done is not None:
            report(f"{self.table}: goes on where the last try ended")
        while kind and (end := self._end(done, kind)) is not None:
            before = time.monotonic()
            changed += self._batch(done, end, kind)
            done, took = end, time.monotonic() - before
            if time.monotonic() - said > REPORT_SECONDS:
                said = time.monotonic()
                report(f"{self.table}: {changed:,} rows changed in {said - begun:.0f} s")
            await_only(asyncio.sleep(max(PAUSE_SECONDS, took)))
        report(f"{self.table}: {changed:,} rows changed, all batches done")

    def _end(self, done: str | None, kind: str) -> str | None:
        """Return the last key of the batch after `done`; None where there is none."""
        after = "true" if done is None else f"{self.key} > {_literal(done, kind)}"
        query = END.format(key=self.key, table=self.table, after=after, size=self.size)
        end: str | None = self._do(query).scalar()
        return end

    def _batch(self, done: str | None, end: str, kind: str) -> int:
        """Run one batch and note where it ended, both or neither; return how many rows were changed."""
        first = "" if done is None else f"{self.key} > {_literal(done, kind)} AND "
        one = self.statement.replace("{batch}", f"{first}{self.key} <= {_literal(end, kind)}")
        for tries in range(TRIES):
            self._do("BEGIN")
            try:
                count = self._do(one).rowcount
                self._do(DONE, statement=self.statement, done=end)
                self._do("COMMIT")
            except DBAPIError as error:
                self._do("ROLLBACK")
                state = getattr(getattr(error.orig, "__cause__", None), "sqlstate", "")
                if state not in BUSY or tries == TRIES - 1:
                    raise
            else:
                return max(count, 0)
        raise AssertionError  # the last try has returned or raised

    def _do(self, sql: str, **values: str) -> CursorResult[Any]:
        return self.connection.execute(text(sql), values)


def _literal(value: str, kind: str) -> str:
    """Return `value` as SQL in which SQLAlchemy sees no parameter."""
    quoted = value.replace("'", "''").replace("\\", "\\\\").replace(":", "\\:")
    return f"CAST('{quoted}' AS {kind})"
