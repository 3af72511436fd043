"""Findings about PostgreSQL and Redis, from the report of `stores_probe`, which runs where a replica runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import SlipwayError
from pipeline.targets.common import stores_probe

__all__ = ["probe_command", "read_stores", "store_findings"]

FULL = 0.8  # of connections, memory or a volume: leaves time to act, and usual peaks stay below it
SLOT_BYTES = 2**30  # of write-ahead log kept for one replica: what a busy service writes in minutes
Seen = Mapping[str, Any]


def probe_command(*stores: str) -> list[str]:
    """Return the arguments for the service's Python that ask `stores` (`database`, `redis`).

    Run it in the folder that the service's package is in.
    """
    return ["-c", Path(stores_probe.__file__).read_text(encoding="utf-8"), *stores]


def read_stores(said: str) -> dict[str, Any]:
    """Return the report in `said`, the probe's output. Raise `SlipwayError` where there is none."""
    for line in reversed(said.splitlines()):
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict):
            return report
    raise SlipwayError(f"the probe printed `{said.strip()[-200:]}`")


def store_findings(seen: Seen, needed: str | None, deploy: str) -> list[str]:
    """List what is wrong, one line each with its fix.

    `needed` is the schema revision of the release that serves, `deploy` the command that ships.
    """
    findings: list[str] = []
    if "database" in seen:
        findings += _database(seen["database"], needed, deploy)
    if "redis" in seen:
        findings += _redis(seen["redis"])
    return findings


def _database(seen: Seen, needed: str | None, deploy: str) -> Iterator[str]:
    if "problem" in seen:
        yield f"cannot connect to the database: {seen['problem']}: {_way_in(seen['problem'])}"
        return
    if seen["standby"]:
        yield "the database is a standby, which takes no writes: promote it, or fix POSTGRES_HOST"
    elif seen["read_only"]:
        yield (
            "the database takes no writes, as default_transaction_read_only is on: make room if its disk is full, else"
            f" reset it as its superuser: `ALTER DATABASE {seen['name']} RESET default_transaction_read_only`, or the"
            " same with ALTER ROLE or ALTER SYSTEM"
        )
    yield from _connections(seen)
    yield from _replication(seen["slots"])
    for transaction in seen["transactions"]:
        yield (
            f"a transaction of `{transaction['who']}` has been open for {transaction['seconds']} s"
            f" ({transaction['state']}) and holds up VACUUM and migrations: end it:"
            f" `SELECT pg_terminate_backend({transaction['pid']})`"
        )
    if seen["waiting"]["sessions"]:
        behind = sorted({pid for pids in seen["waiting"]["behind"] or () for pid in pids})
        yield (
            f"{seen['waiting']['sessions']} sessions wait for a lock, the longest for {seen['waiting']['seconds']} s,"
            f" behind process {', '.join(map(str, behind)) or '?'}: look it up in pg_stat_activity, and end it"
        )
    yield from _schema(seen, needed, deploy)
    capacity = seen.get("capacity")
    if capacity and seen["bytes"] >= FULL * capacity:
        yield (
            f"the database {seen['name']} takes {_size(seen['bytes'])}, and its volume of {_size(capacity)} also holds"
            " the write-ahead log: make the claim larger (`spec.resources.requests.storage`)"
        )


def _way_in(problem: str) -> str:
    if "connection slots" in problem or "too many" in problem:
        return "lower DATABASE_POOL_SIZE, DATABASE_MAX_OVERFLOW or the replicas, or raise max_connections"
    if "password" in problem or "role" in problem:
        return "set the password of the role POSTGRES_USER to that of POSTGRES_PASSWORD"
    return "check that it is up and that POSTGRES_* point to it"


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
    for slot in slots:
        kept = _size(slot["bytes"] or 0)
        drop = f"`SELECT pg_drop_replication_slot('{slot['name']}')`"
        if slot["wal"] == "lost":
            yield f"replication slot {slot['name']} has lost its place: {drop}, and rebuild its replica"
        elif not slot["active"]:
            yield (
                f"replication slot {slot['name']} is inactive, and keeps {kept} of write-ahead log, which fills the"
                f" disk: start its reader, or {drop}"
            )
        elif (slot["bytes"] or 0) >= SLOT_BYTES or slot["wal"] == "unreserved":
            yield f"replication slot {slot['name']} lags by {kept}: is its replica or its network overloaded?"


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
            f"index {name} is not valid (building it failed): it slows down each write and serves no reads:"
            f" `DROP INDEX CONCURRENTLY {name}`, and build it again"
        )


def _redis(seen: Seen) -> Iterator[str]:
    if "problem" in seen:
        why = f"{seen['problem']}; nothing is cached"
        yield f"Redis does not answer: {why}: check that it is up and that REDIS_* point to it"
        return
    # With another policy, Redis evicts old keys, so that a full memory is normal.
    if (
        seen["maxmemory"]
        and seen["maxmemory_policy"] == "noeviction"
        and seen["used_memory"] >= FULL * seen["maxmemory"]
    ):
        yield (
            f"Redis uses {_size(seen['used_memory'])} of {_size(seen['maxmemory'])}, and will refuse writes when full"
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
