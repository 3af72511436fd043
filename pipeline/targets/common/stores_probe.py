"""A probe of PostgreSQL and Redis with the service's own role, which prints a line of JSON for `doctor`.

It runs standalone where a replica runs (`python -c THIS database redis`), on the service's Python, packages and
settings, so that it sees what the service sees. It asks for nothing that the service's role may not see, and changes
nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

SECONDS = 5.0  # for a connection, and for each question
LONG_SECONDS = 300  # for a transaction: the service's own end after 10 s
WAIT_SECONDS = 5  # for a lock: the service gives up after 2 s, a migration after 4 s

# `numbackends`, because a plain role sees in pg_stat_activity whose a session is, but not of what kind.
CONNECTIONS = """
SELECT session_user AS role, current_database() AS name, pg_database_size(current_database()) AS bytes,
       pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only,
       (SELECT sum(numbackends)::int FROM pg_stat_database) AS used,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true)::int, 0) AS most,
       (SELECT count(*)::int FROM pg_stat_activity WHERE usename = session_user) AS role_used,
       (SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user) AS role_most,
       (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()) AS database_used,
       (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_most
"""
# Who owns the tables, and whether the service is among them.
OWNER = """
SELECT pg_get_userbyid(relowner) AS owner, pg_has_role(relowner, 'USAGE') AS owns
FROM pg_class WHERE oid = to_regclass('alembic_version')
"""
SLOTS = """
SELECT slot_name AS name, active, wal_status AS wal,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint END AS bytes
FROM pg_replication_slots
"""
TRANSACTIONS = """
SELECT pid, application_name AS who, state, extract(epoch FROM now() - xact_start)::int AS seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - make_interval(secs => $1)
ORDER BY xact_start LIMIT 3
"""
WAITING = """
SELECT count(*)::int AS sessions, max(extract(epoch FROM clock_timestamp() - waitstart))::int AS seconds,
       (array_agg(pg_blocking_pids(pid) ORDER BY waitstart))[1:1] AS behind
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE NOT granted AND datname = current_database() AND waitstart < clock_timestamp() - make_interval(secs => $1)
"""
# Without those that are being built right now, which are not valid yet.
INVALID_INDEXES = """
SELECT indexrelid::regclass::text FROM pg_index
WHERE NOT indisvalid AND indexrelid NOT IN (SELECT index_relid FROM pg_stat_progress_create_index WHERE index_relid > 0)
"""


async def connect(settings: Any) -> Any:
    """Return a connection to the database of `settings`, made as the release makes its own."""
    import asyncpg

    own = {"application_name": "slipway-doctor"}
    try:
        from backend.postgres import Connector
    except ImportError:  # a release of before, which no deploy gave a URL
        password = settings.postgres_password
        return await asyncpg.connect(
            host=settings.postgres_host,
            port=settings.postgres_port,
            user=settings.postgres_user,
            database=settings.postgres_db,
            password=password.get_secret_value() if password else None,
            timeout=SECONDS,
            command_timeout=SECONDS,
            server_settings=own,
        )
    return await Connector(settings, own, seconds=SECONDS, command_timeout=SECONDS).connect()


async def database(settings: Any) -> dict[str, Any]:
    """Return what PostgreSQL reports; only `problem` where the connection fails."""
    import asyncpg

    try:
        connection = await connect(settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return {"problem": " ".join(str(error).split()) or type(error).__name__}
    try:
        seen = dict(await connection.fetchrow(CONNECTIONS))
        seen |= dict(await connection.fetchrow(OWNER) or {})
        seen["slots"] = [dict(row) for row in await connection.fetch(SLOTS)]
        seen["transactions"] = [dict(row) for row in await connection.fetch(TRANSACTIONS, LONG_SECONDS)]
        seen["waiting"] = dict(await connection.fetchrow(WAITING, WAIT_SECONDS))
        seen["invalid_indexes"] = [row[0] for row in await connection.fetch(INVALID_INDEXES)]
        migrated = await connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
        seen["revision"] = await connection.fetchval("SELECT version_num FROM alembic_version") if migrated else None
        recorded = await connection.fetchval("SELECT to_regclass('alembic_history') IS NOT NULL")
        applied = "SELECT revision FROM alembic_history ORDER BY ordinal"
        seen["applied"] = [row[0] for row in await connection.fetch(applied)] if recorded else None
    finally:
        await connection.close()
    return seen


def cache(settings: Any) -> dict[str, Any]:
    """Return what Redis reports; only `problem` where it does not answer."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import NoPermissionError, RedisError
    from redis.retry import Retry

    limits: dict[str, Any] = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS}
    limits |= {"retry": Retry(NoBackoff(), 0), "decode_responses": True}
    if settings.redis_url:
        client = Redis.from_url(settings.redis_url.get_secret_value(), **limits)
    else:
        host, password = settings.redis_host, settings.redis_password
        place = {"unix_socket_path": host} if host.startswith("/") else {"host": host, "port": settings.redis_port}
        client = Redis(**place, password=password.get_secret_value() if password else None, **limits)
    try:
        with client:
            client.ping()
            try:
                info: dict[str, Any] = client.info()
            except NoPermissionError:  # the figures are for whoever manages it
                info = {}
    except (OSError, RedisError) as error:
        return {"problem": " ".join(str(error).split()) or type(error).__name__}
    names = ("used_memory", "maxmemory", "maxmemory_policy", "connected_clients", "maxclients", "aof_last_write_status")
    return {name: info.get(name) for name in names}


def main(stores: list[str]) -> None:
    """Print what `stores` (`database`, `redis`) report, as a line of JSON."""
    from backend.settings import load_settings

    settings, seen = load_settings(sections=stores), {}
    if "database" in stores:
        seen["database"] = asyncio.run(database(settings))
    if "redis" in stores:
        seen["redis"] = cache(settings)
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
