"""The checks of readiness. Each has a time limit, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
from redis.exceptions import RedisError, ResponseError

from backend.cache import Cache
from backend.database import Database, DatabaseUnavailable
from backend.drain import Drain
from backend.health.schemas import WRITES, Check, CheckName, Excludable, Readiness

__all__ = ["HealthService", "needed_revision"]

CHECK_SECONDS = 0.5
READ_ONLY = "read-only"  # the state of a database until it is known who asks
VERSIONS = Path(__file__).parent.parent / "migrations/versions"
# Only the history shows what was applied: a revision that sorts after ours may come from anywhere.
SCHEMA = """
    SELECT (SELECT max(version_num) FROM alembic_version) AS revision,
           $1 = '' OR EXISTS (SELECT FROM alembic_history WHERE revision = $1) AS applied,
           current_setting('transaction_read_only') = 'on' AS read_only
"""


def needed_revision() -> str:
    """Return the revision of the newest migration in this release, or an empty string if there is none."""
    # By the file's name: the service does without Alembic.
    return max((path.name[:4] for path in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py")), default="")


@dataclass(frozen=True)
class HealthService:
    """The concurrent checks of readiness. A hanging check is joined, not repeated, so that polls do not pile up."""

    database: Database
    cache: Cache
    drain: Drain
    needed: str = field(default_factory=needed_revision)
    _running: dict[str, asyncio.Task[dict[CheckName, Check]]] = field(default_factory=dict)

    async def readiness(self, excluded: Collection[Excludable] = ()) -> Readiness:
        """Return the state of each check; those in `excluded` are not run and do not count."""
        checks = dict.fromkeys(CheckName, Check(state="excluded", ms=0))
        sql = {CheckName.DATABASE, CheckName.SCHEMA}.difference(excluded)
        jobs = []
        if sql:
            jobs.append(self._bounded("sql", self._check_sql, sql))
        if CheckName.REDIS not in excluded:
            jobs.append(self._bounded("redis", self._check_redis, {CheckName.REDIS}))
        for results in await asyncio.gather(*jobs):
            checks |= results
        if checks[CheckName.DATABASE].state == READ_ONLY:
            state = "degraded" if WRITES in excluded else "failed"
            checks[CheckName.DATABASE] = checks[CheckName.DATABASE].model_copy(update={"state": state})
        if CheckName.DRAINING not in excluded:
            checks[CheckName.DRAINING] = Check(state="failed" if self.drain.active else "ok", ms=0)
        ready = not any(check.state in ("failed", "timeout") for check in checks.values())
        return Readiness(ready=ready, checks=checks)

    async def _bounded(
        self, name: str, check: Callable[[], Coroutine[Any, Any, dict[CheckName, Check]]], names: set[CheckName]
    ) -> dict[CheckName, Check]:
        """Return the results of `check` for `names`; after CHECK_SECONDS `timeout` for each, `degraded` for Redis."""
        # A late check goes on: cancelling a query of a hung PostgreSQL waits for that PostgreSQL.
        task = self._running.get(name)
        if task is None or task.done():
            task = self._running[name] = asyncio.create_task(check())
        done, _ = await asyncio.wait({task}, timeout=CHECK_SECONDS)
        if done:
            return {name: check for name, check in task.result().items() if name in names}
        ms, detail = CHECK_SECONDS * 1000, "no answer in time"
        return {
            one: Check(state="degraded" if one is CheckName.REDIS else "timeout", ms=ms, detail=detail) for one in names
        }

    async def _check_sql(self) -> dict[CheckName, Check]:
        started = perf_counter()
        try:
            async with self.database.lease() as connection:
                try:
                    row = await connection.fetchrow(SCHEMA, self.needed)
                except asyncpg.UndefinedTableError:
                    row = None
                refused = self.database.read_only() if row and row["read_only"] else None
        except DatabaseUnavailable as error:
            failed = Check(state="failed", ms=_since(started), detail=error.detail)
            return {CheckName.DATABASE: failed, CheckName.SCHEMA: failed}
        ms = _since(started)
        schema = Check(state="ok", ms=ms)
        if not row or not row["applied"]:  # a newer database has it too: migrations only expand
            revision = row["revision"] if row else None
            detail = f"the database is at revision {revision or 'none'}, this release needs {self.needed}"
            schema = Check(state="failed", ms=ms, detail=detail)
        database = Check(state=READ_ONLY if refused else "ok", ms=ms, detail=refused.detail if refused else None)
        return {CheckName.DATABASE: database, CheckName.SCHEMA: schema}

    async def _check_redis(self) -> dict[CheckName, Check]:
        started = perf_counter()
        try:
            await self.cache.check()
        except ResponseError:  # it may name users
            check = Check(state="degraded", ms=_since(started), detail="Redis refuses writes; nothing is cached")
        except (RedisError, OSError):
            check = Check(state="degraded", ms=_since(started), detail="Redis does not answer; nothing is cached")
        else:
            check = Check(state="ok", ms=_since(started))
        return {CheckName.REDIS: check}


def _since(started: float) -> float:
    return round((perf_counter() - started) * 1000, 2)
