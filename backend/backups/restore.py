"""A restore: into a new database beside the one that serves, checked there."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg

from backend.backups import facts, store
from backend.backups.errors import BackupFailed
from backend.backups.manifest import Manifest
from backend.backups.outside import give_outside, make_database, make_extensions, without_extensions
from backend.backups.plain import write_plain
from backend.backups.programs import run
from backend.backups.server import MAINTENANCE, Server, checked_name, mark, marks, pointed
from backend.backups.verify import Checked, contents
from backend.backups.words import in_bytes
from backend.migrations.connection import MigrationFailed
from backend.migrations.runner import Wanted, upgrade
from backend.rights.statements import identifier

__all__ = ["BEFORE", "PARALLEL_BYTES", "drop", "restore"]

Say = Callable[[str], None]

BEFORE = "-before-"  # between the name of a database that served and when it was put aside
PARALLEL_BYTES = 256 << 20  # of a backup, from which on its restore has several jobs
JOBS = 4
PROGRESS_SECONDS = 2.0
SIZE = "SELECT pg_database_size(current_database())"


async def restore(server: Server, checked: Checked, database: str, say: Say, *, beside: bool = True) -> dict[str, Any]:
    """Restore the backup `checked` into a new `database`; return what it has. A failure leaves none.

    `beside`: it is not the one that serves; otherwise the server has been made for this, and has none that does.

    Raise `BackupFailed` with the first thing that goes wrong.
    """
    manifest, began = checked.manifest, time.monotonic()
    if checked.schema == "newer":
        raise BackupFailed(
            f"{manifest.name}: its schema revision {manifest.revision} is unknown to this release: restore it with the"
            f" release that made it ({manifest.release}), or a newer one"
        )
    if checked_name(database) == server.serving and beside:
        raise BackupFailed(f"{database} is the database that serves: name another one, and `swap` them afterwards")
    async with server.alone() as connection:
        _check_server(manifest, connection.get_server_version())
        await _drop_those_put_aside(connection, server.serving, say)
        await _make_way(connection, server, database, say)
        try:
            await make_database(connection, server, manifest, database, say)
            await mark(connection, database, restoring=manifest.name)
            await _fill(server, checked, database, say)
            rows = await _compare(server, manifest, database, say)
            migrated = await _migrate(server, checked, database, say)
            await mark(
                connection, database, restoring=None, backup=manifest.name, snapshot=manifest.snapshot.isoformat()
            )
        except BaseException:
            # Also where it is stopped: half a database is none.
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.shield(_drop(connection, database))
                say(f"dropped {database}, which was half made")
            raise
    seconds = time.monotonic() - began
    say(f"{manifest.name}: restored into {database}: {rows} rows, {in_bytes(manifest.bytes)}, {seconds:.1f} s")
    return {
        "name": manifest.name,
        "database": database,
        "snapshot": manifest.snapshot.isoformat(),
        "schema": checked.schema,
        "revision": manifest.revision,
        "migrated": migrated,
        "rows": rows,
        "bytes": manifest.bytes,
        "seconds": round(seconds, 3),
    }


async def drop(server: Server, database: str) -> bool:
    """Drop `database`, which a restore made or a swap put aside; return whether it was there.

    Raise `BackupFailed` where it is neither.
    """
    async with server.alone() as connection:
        if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", database):
            return False
        if database == server.serving or not await _is_ours(connection, database, server.serving):
            raise BackupFailed(f"{database}: no restore made it, and no swap put it aside: it is not dropped")
        await _drop(connection, database)
    return True


def _check_server(manifest: Manifest, version: Any) -> None:
    theirs = int(manifest.server.partition(".")[0])
    if theirs > version.major:
        raise BackupFailed(
            f"{manifest.name} is of PostgreSQL {theirs}, the server is {version.major}: restore it into one of {theirs}"
        )


async def _is_ours(connection: asyncpg.Connection[Any], database: str, serving: str) -> bool:
    if database.startswith(f"{serving}{BEFORE}"):
        return True
    return bool({"restoring", "backup"} & (await marks(connection, database)).keys())


async def _drop_those_put_aside(connection: asyncpg.Connection[Any], serving: str, say: Say) -> None:
    """Drop what served before an earlier restore."""
    pattern = re.compile(re.escape(f"{serving}{BEFORE}") + r"\d{8}T\d{9}Z")
    for row in await connection.fetch("SELECT datname FROM pg_database"):
        if pattern.fullmatch(row["datname"]):
            await _drop(connection, row["datname"])
            say(f"dropped {row['datname']}, which an earlier restore had put aside")


async def _make_way(connection: asyncpg.Connection[Any], server: Server, database: str, say: Say) -> None:
    """Drop what a restore that was killed has left under the name, or an empty database. Raise for any other one."""
    if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", database):
        return
    if "restoring" not in await marks(connection, database) and not await _is_empty(server, database):
        raise BackupFailed(f"there is a database {database} already: name another one, or `drop` it")
    await _drop(connection, database)
    say(f"dropped {database}, which was empty, or left by a restore that was killed")


async def _is_empty(server: Server, database: str) -> bool:
    if database == MAINTENANCE:
        return False
    async with server.as_administrator(database) as connection:
        return not await facts.tables(connection)


async def _drop(connection: asyncpg.Connection[Any], database: str) -> None:
    await connection.execute(f"DROP DATABASE IF EXISTS {identifier(database)} WITH (FORCE)")


async def _fill(server: Server, checked: Checked, database: str, say: Say) -> None:
    """Let `pg_restore` fill the new `database`, as the owner, and give it what is in no dump."""
    manifest = checked.manifest
    async with server.as_administrator(database) as connection:
        await make_extensions(connection, server, manifest)
    with store.part(server.own.backup_folder, f"restore-{secrets.token_hex(6)}") as (part, lock):
        dump = part / "dump"
        dump.mkdir()
        await asyncio.to_thread(write_plain, checked, dump, say)
        listed = part / "list"
        listed.write_text(without_extensions(await contents(dump), manifest), encoding="utf-8")
        jobs = JOBS if manifest.bytes >= PARALLEL_BYTES else 1
        # Each error ends it. What belongs to whom, the owner and `backend.rights` decide, not the dump.
        arguments = ("--format=directory", "--exit-on-error", "--no-owner", "--no-privileges", "--no-subscriptions",
                     f"--jobs={jobs}", f"--use-list={listed}", f"--dbname={database}", str(dump))  # fmt: skip
        async with _told(server, database, say):
            await run("pg_restore", *arguments, variables=server.variables(database), held=(lock,))
    async with server.as_owner(database) as connection:
        await connection.execute("ANALYZE")  # a dump has no statistics, and plans without them are slow
    await give_outside(server, manifest, database, say)


@contextlib.asynccontextmanager
async def _told(server: Server, database: str, say: Say) -> AsyncIterator[None]:
    """Say while the block runs how much is in `database`."""
    async with server.as_owner(database) as connection:
        telling = asyncio.create_task(_tell(connection, say))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])


async def _tell(connection: asyncpg.Connection[Any], say: Say) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        there, seconds = await connection.fetchval(SIZE), time.monotonic() - began
        say(f"{seconds:.0f} s: {in_bytes(there)} in the database, {in_bytes(there / seconds)}/s")


async def _compare(server: Server, manifest: Manifest, database: str, say: Say) -> int:
    """Return how many rows `database` has. Raise `BackupFailed` where it is not what the manifest says."""
    async with server.as_owner(database) as connection:
        revision = await facts.revision(connection)
        counted = await facts.count_rows(connection, await facts.tables(connection))
    wanted = {table.name: table.rows for table in manifest.tables}
    found = {table.name: table.rows for table in counted}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise BackupFailed(
                f"{manifest.name}: {name} has {found.get(name, 'no')} rows after the restore, and"
                f" {wanted.get(name, 'no')} in the manifest"
            )
    if revision != manifest.revision:
        raise BackupFailed(
            f"{manifest.name}: revision {revision} after the restore, {manifest.revision} in the manifest"
        )
    say(f"{database}: {len(found)} tables, {sum(found.values())} rows, revision {revision}: as in the manifest")
    return sum(found.values())


async def _migrate(server: Server, checked: Checked, database: str, say: Say) -> list[str]:
    """Bring the schema of `database` to this release's; return the revisions that were applied."""
    if checked.schema == "same":
        return []
    applied: list[str] = []

    def report(line: str) -> None:
        applied.extend(re.findall(r"^applied (\S+)", line))
        say(line)

    try:
        await upgrade(pointed(server.settings, database), Wanted(), report)
    except MigrationFailed as error:
        raise BackupFailed(f"{checked.manifest.name}: {error}") from error
    return applied
