"""A backup: one dump of the database, at one snapshot, that is whole or is not there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from backend.backups import facts, store
from backend.backups.crypt import ENCRYPTED, Unnamed, encrypt, hashed
from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST, Manifest, Properties, Shrunken, StoredFile, Table, new_name
from backend.backups.programs import environment, programs_version, run, zstd_works
from backend.backups.settings import BackupSettings
from backend.backups.words import in_bytes, rate
from backend.beside import CONNECT_SECONDS
from backend.exclusion import backing_up, backup_session_name
from backend.postgres import Connector
from backend.settings import Settings

__all__ = ["Say", "back_up", "server_problem"]

Say = Callable[[str], None]

PARALLEL_BYTES = 1 << 30  # of tables, from which on a dump has several jobs
JOBS = 4
PROGRESS_SECONDS = 2.0
LEAST_FREE_BYTES = 64 << 20
GROWTH = 1.25  # of a backup over the one before
FIRST_SHARE = 0.25  # of the tables' size that a first backup is expected to have
SHRUNKEN = 0.5  # of the rows of before: what has fewer is said
MIGRATIONS = re.compile(r"\.alembic_(version|history)$")  # which have rows in an empty database, too
# Who changes a table by hand must not be waited for, with all who would wait behind.
LOCK_WAIT = "30s"
LIMITS = {
    "statement_timeout": "0",
    "transaction_timeout": "0",  # from PostgreSQL 17 on
    "lock_timeout": LOCK_WAIT,
    "client_connection_check_interval": "1s",  # a killed backup's statement waits for nothing any more
}


@dataclass(frozen=True)
class _Seen:
    """What the snapshot shows, beside the rows."""

    database: str
    server: str
    revision: str | None
    table_bytes: int
    properties: Properties
    tables: list[str]


async def back_up(settings: Settings, own: BackupSettings, before: Manifest | None, say: Say) -> Manifest:
    """Make a backup in BACKUP_FOLDER and return its manifest. `before`: the newest one that there is.

    Raise `BackupFailed` where there is none afterwards.
    """
    for name in store.clear(own.backup_folder):
        say(f"removed {name}, which a backup that was killed had left")
    started = datetime.now(UTC)
    name = new_name(started)
    if not own.backup_recipients:
        say("BACKUP_RECIPIENTS is not set: the backup is not encrypted")
    with store.part(own.backup_folder, name) as (path, lock):
        try:
            return await _make(settings, own, say, path=path, lock=lock, name=name, started=started, before=before)
        except asyncpg.LockNotAvailableError as error:
            raise BackupFailed(f"a table was locked for {LOCK_WAIT} (as by a migration): nothing was kept") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise BackupFailed(_full(own.backup_folder)) from error
            raise
        except BackupFailed as error:
            if "No space left on device" in str(error):
                raise BackupFailed(_full(own.backup_folder)) from error
            raise


async def _make(
    settings: Settings, own: BackupSettings, say: Say, *, path: Path, lock: int, name: str, started: datetime,
    before: Manifest | None,
) -> Manifest:  # fmt: skip
    programs, compression = await programs_version(), "zstd" if await zstd_works() else "gzip"
    async with backing_up(settings) as connection:
        _check_server(programs, connection.get_server_version())
        async with _snapshot(connection) as (identity, taken):
            seen = await _look(connection)
            jobs = _jobs(seen.table_bytes)
            _check_room(own.backup_folder, before, seen.table_bytes)
            say(f"{name}: {len(seen.tables)} tables, {in_bytes(seen.table_bytes)}, {compression}, {jobs} at once")
            dump = ("--format=directory", f"--compress={compression}", f"--jobs={jobs}", f"--snapshot={identity}",
                    f"--lock-wait-timeout={LOCK_WAIT}", "--no-sync", f"--file={path / 'dump'}")  # fmt: skip
            address = Connector(settings, {}, seconds=CONNECT_SECONDS, migrating=True).address
            variables = environment(address, name=backup_session_name(settings))
            unnamed = Unnamed(path / "dump") if own.backup_recipients else None
            with contextlib.closing(unnamed) if unnamed else contextlib.nullcontext():
                async with _watched(path / "dump", unnamed, say):
                    rows = await _both(
                        run("pg_dump", *dump, variables=variables, held=(lock,)),
                        facts.count_rows(connection, seen.tables),
                    )
                shrunken = _compare(rows, before, say)
                files = await _store(path, unnamed, own.backup_recipients, say)
    manifest = Manifest(
        name=name,
        started=started,
        finished=datetime.now(UTC),
        project=settings.project_name,
        environment=settings.environment,
        release=settings.release,
        revision=seen.revision,
        database=seen.database,
        server=seen.server,
        programs=programs,
        compression="zstd" if compression == "zstd" else "gzip",
        encrypted=own.backup_recipients,
        snapshot=taken,
        tables=rows,
        shrunken=shrunken,
        properties=seen.properties,
        bytes=sum(file.bytes for file in files),
        files=files,
    )
    (path / MANIFEST).write_text(manifest.text(), encoding="utf-8")
    store.publish(path, name)
    say(f"{name}: {manifest.rows} rows, {in_bytes(manifest.bytes)}, {rate(manifest.bytes, started)}")
    return manifest


async def _both(dump: Any, count: Any) -> tuple[Table, ...]:
    """Dump and count at the same time; the first that fails ends the other. Return the counted rows."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(dump)
            counted = group.create_task(count)
    except* (BackupFailed, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as errors:
        raise errors.exceptions[0] from None
    rows: tuple[Table, ...] = counted.result()
    return rows


@asynccontextmanager
async def _snapshot(connection: asyncpg.Connection[Any]) -> AsyncIterator[tuple[str, datetime]]:
    """Keep one snapshot of the database while the block runs; yield its name, and a time that it is no older than."""
    known = await connection.fetch("SELECT name FROM pg_settings WHERE name = ANY($1)", [*LIMITS])
    for row in known:
        await connection.execute(f"SET {row['name']} = '{LIMITS[row['name']]}'")
    await connection.execute("SET row_security = off")  # an error, instead of rows that are left out
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        taken = await connection.fetchval("SELECT now()")
        yield await connection.fetchval("SELECT pg_export_snapshot()"), taken


async def _look(connection: asyncpg.Connection[Any]) -> _Seen:
    database = await connection.fetchval("SELECT current_database()")
    return _Seen(
        database=database,
        server=(await connection.fetchval("SHOW server_version")).split()[0],
        revision=await facts.revision(connection),
        table_bytes=await facts.table_bytes(connection),
        properties=await facts.properties(connection, database),
        tables=await facts.tables(connection),
    )


@asynccontextmanager
async def _watched(folder: Path, unnamed: Unnamed | None, say: Say) -> AsyncIterator[None]:
    """Say how much is in `folder` while the block runs, and take the names of its files away."""
    began = time.monotonic()

    async def report() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            done = (unnamed.written() if unnamed else 0) + _size(folder)
            say(f"dumped {in_bytes(done)}, {in_bytes(done / (time.monotonic() - began))}/s")

    tasks = [asyncio.create_task(report())]
    if unnamed:
        tasks.append(asyncio.create_task(unnamed.watch()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                total += entry.stat().st_size
    return total


async def _store(path: Path, unnamed: Unnamed | None, recipients: Sequence[str], say: Say) -> tuple[StoredFile, ...]:
    """Move the dump's files to where a backup has them, encrypted for `recipients`; return what is stored."""
    files, done, began, last = [], 0, time.monotonic(), time.monotonic()
    named = sorted(file.name for file in (path / "dump").iterdir())
    for name, source in unnamed.open().items() if unnamed else dict.fromkeys(named).items():
        if source is None:
            (path / "dump" / name).rename(path / name)
            stored = await asyncio.to_thread(hashed, path / name)
        else:
            stored = await asyncio.to_thread(encrypt, source, path / f"{name}{ENCRYPTED}", recipients)
            source.close()
        files.append(stored)
        done += stored.bytes
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            verb = "encrypted" if recipients else "read again"
            say(f"{verb} {in_bytes(done)}, {in_bytes(done / (last - began))}/s")
    (path / "dump").rmdir()
    return tuple(files)


def _compare(rows: Sequence[Table], before: Manifest | None, say: Say) -> tuple[Shrunken, ...]:
    """Return the tables that have shrunk since `before`, and say so. Raise `BackupFailed` where no row is left."""
    if before is None:
        return ()
    now = {table.name: table.rows for table in rows}
    had, has = (sum(one.rows for one in tables if not MIGRATIONS.search(one.name)) for tables in (before.tables, rows))
    if had and not has:
        raise BackupFailed(
            f"the database has no rows, and had {had} in {before.name}: nothing was kept. If it is meant to be"
            " empty, move the older backups to another folder"
        )
    shrunken = tuple(
        Shrunken(name=table.name, rows=now.get(table.name, 0), before=table.rows)
        for table in before.tables
        if now.get(table.name, 0) < table.rows * SHRUNKEN
    )
    for table in shrunken:
        gone = "is gone" if table.name not in now else f"has {table.rows} rows"
        say(f"{table.name} {gone}; it had {table.before} in {before.name}")
    return shrunken


async def server_problem(settings: Settings) -> str | None:
    """Return why the next backup will fail for the version of the server; None where it will not, or is not known."""
    connector = Connector(settings, {}, seconds=CONNECT_SECONDS, migrating=True)
    try:
        connection = await connector.connect()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
    try:
        _check_server(await programs_version(), connection.get_server_version())
    except BackupFailed as error:
        return str(error)
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
    return None


def _check_server(programs: str, server: Any) -> None:
    """Raise `BackupFailed` where the `programs` are older than the server."""
    if server.major > int(programs.partition(".")[0]):
        raise BackupFailed(
            f"the server is PostgreSQL {server.major}, pg_dump is {programs}, and dumps no newer server than itself:"
            f" take the programs of {server.major} (of the image `backup`, or of the wheel)"
        )


def _check_room(folder: Path, before: Manifest | None, table_bytes: int) -> None:
    """Raise `BackupFailed` where there is no room for what a backup needs by experience."""
    wanted = max(before.bytes * GROWTH if before else table_bytes * FIRST_SHARE, LEAST_FREE_BYTES)
    free = store.free_bytes(folder)
    if free < wanted:
        raise BackupFailed(
            f"BACKUP_FOLDER: {folder} has {in_bytes(free)} free, and a backup needs about {in_bytes(wanted)}: make"
            " room, or remove older backups there"
        )


def _full(folder: Path) -> str:
    return f"BACKUP_FOLDER: {folder} is full: nothing was kept; make room, or remove older backups there"


def _jobs(table_bytes: int) -> int:
    return min(JOBS, os.cpu_count() or 1) if table_bytes >= PARALLEL_BYTES else 1
