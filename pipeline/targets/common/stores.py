"""What is wrong with PostgreSQL and Redis, by what `stores_probe` was told where a replica runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.targets.common import stores_probe

__all__ = ["probe_command", "read_stores", "store_findings"]

FULL = 0.8  # of connections, memory or a volume: there is time to act, and a peak does not reach it
SLOT_BYTES = 2**30  # of write-ahead log that is kept for one replica: minutes of a busy service
Seen = Mapping[str, Any]


def probe_command(*stores: str) -> list[str]:
    """What follows the service's Python to ask STORES (`database`, `redis`), in the folder that its package is in."""
    return ["-c", Path(stores_probe.__file__).read_text(encoding="utf-8"), *stores]


def read_stores(said: str) -> dict[str, Any]:
    """What the probe SAID. Raises `SlipwayError` where that is nothing."""
    for line in reversed(said.splitlines()):
        try:
            seen = json.loads(line)
        except ValueError:
            continue
        if isinstance(seen, dict):
            return seen
    raise SlipwayError(f"it said `{said.strip()[-200:]}`")


def store_findings(seen: Seen, needed: str | None, deploy: str) -> list[str]:
    """What is wrong, one line each with its fix. NEEDED: the schema revision of the release that serves; DEPLOY: the
    command that ships.
    """
    found: list[str] = []
    if "database" in seen:
        found += _database(seen["database"], needed, deploy)
    if "redis" in seen:
        found += _redis(seen["redis"])
    return found


def _database(seen: Seen, needed: str | None, deploy: str) -> Iterator[str]:
    if "problem" in seen:
        yield f"the database lets nobody in: {seen['problem']}: {_way_in(seen['problem'])}"
        return
    if seen["standby"]:
        yield "the database is a standby, which takes no writes: promote it, or mend POSTGRES_HOST"
    yield from _connections(seen)
    yield from _replication(seen["slots"])
    for one in seen["transactions"]:
        yield (
            f"a transaction of `{one['who']}` is open for {one['seconds']} s ({one['state']}), and keeps VACUUM and"
            f" migrations waiting: end it: `SELECT pg_terminate_backend({one['pid']})`"
        )
    if seen["waiting"]["sessions"]:
        behind = sorted({pid for pids in seen["waiting"]["behind"] or () for pid in pids})
        yield (
            f"{seen['waiting']['sessions']} sessions wait for a lock, the longest for {seen['waiting']['seconds']} s,"
            f" behind process {', '.join(map(str, behind)) or '?'}: look at it in pg_stat_activity, and end it"
        )
    yield from _schema(seen, needed, deploy)
    capacity = seen.get("capacity")
    if capacity and seen["bytes"] >= FULL * capacity:
        yield (
            f"the database {seen['name']} has {_size(seen['bytes'])}, its volume {_size(capacity)}, which holds the"
            " write-ahead log, too: make the claim larger (`spec.resources.requests.storage`)"
        )


def _way_in(problem: str) -> str:
    if "connection slots" in problem or "too many" in problem:
        return "lower DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW or the replicas, or raise max_connections"
    if "password" in problem or "role" in problem:
        return "give the role of POSTGRES_USER the password that POSTGRES_PASSWORD has"
    return "is it up, and do POSTGRES_* lead to it?"


def _connections(seen: Seen) -> Iterator[str]:
    for used, most, what, fix in (
        ("used", "most", "the server", "max_connections"),
        ("role_used", "role_most", f"the role {seen['role']}", "its CONNECTION LIMIT"),
        ("database_used", "database_most", f"the database {seen['name']}", "its CONNECTION LIMIT"),
    ):
        if seen[most] >= 0 and seen[used] >= FULL * seen[most]:
            yield (
                f"{what} has {seen[used]} of {seen[most]} connections: lower DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW"
                f" or the replicas, or raise {fix}"
            )


def _replication(slots: list[Seen]) -> Iterator[str]:
    for one in slots:
        kept = _size(one["bytes"] or 0)
        drop = f"`SELECT pg_drop_replication_slot('{one['name']}')`"
        if one["wal"] == "lost":
            yield f"replication slot {one['name']} has lost its place: {drop}, and make its replica anew"
        elif not one["active"]:
            yield (
                f"replication slot {one['name']} is inactive, and keeps {kept} of write-ahead log, which fills the"
                f" disk: start who reads it, or {drop}"
            )
        elif (one["bytes"] or 0) >= SLOT_BYTES or one["wal"] == "unreserved":
            yield f"replication slot {one['name']} lags by {kept}: is its replica overwhelmed, or its network?"


def _schema(seen: Seen, needed: str | None, deploy: str) -> Iterator[str]:
    revision, applied = seen["revision"], seen.get("applied")
    lacks = needed not in applied if applied is not None else (revision or "") < (needed or "")
    if needed and lacks:
        at = f"at revision {revision}" if revision else "not migrated"
        yield f"the database is {at}, and the release that serves needs {needed}: `{deploy}`"
    if applied and revision != applied[-1]:
        fix = f"`UPDATE alembic_version SET version_num = '{applied[-1]}'`"  # noqa: S608 - a text for a person
        yield f"alembic_version says {revision or 'nothing'}, and the migration applied last is {applied[-1]}: {fix}"
    for name in seen["invalid_indexes"]:
        yield (
            f"index {name} is not valid (its building failed): it costs each write and serves no read:"
            f" `DROP INDEX CONCURRENTLY {name}`, and build it again"
        )


def _redis(seen: Seen) -> Iterator[str]:
    if "problem" in seen:
        yield f"Redis does not answer: {seen['problem']}: is it up, and do REDIS_* lead to it? Nothing is cached"
        return
    # What throws away what was used longest ago is full when it works.
    if (
        seen["maxmemory"]
        and seen["maxmemory_policy"] == "noeviction"
        and seen["used_memory"] >= FULL * seen["maxmemory"]
    ):
        yield (
            f"Redis uses {_size(seen['used_memory'])} of {_size(seen['maxmemory'])}, and then refuses writes"
            " (maxmemory-policy noeviction): set allkeys-lru, or raise maxmemory"
        )
    if seen["maxclients"] and seen["connected_clients"] >= FULL * seen["maxclients"]:
        yield (
            f"Redis has {seen['connected_clients']} of {seen['maxclients']} connections: lower REDIS_MAX_CONNECTIONS or"
            " the replicas, or raise maxclients"
        )
    if seen["aof_last_write_status"] not in ("ok", None):
        yield "Redis cannot write its file: is its disk full?"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1024:  # noqa: PLR2004 - of binary units
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"
