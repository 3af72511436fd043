"""Servers of a test's own, to be killed and frozen."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil

from backend.database import Database
from backend.metrics import Metrics
from backend.settings import Settings
from pipeline.engines.embedded import (
    NO_DURABILITY,
    find_engines,
    initdb,
    postgres_command,
    postgres_user,
    reachable_binaries,
    valkey_command,
    wait_for_postgres,
    wait_for_valkey,
)
from pipeline.system.leash import held
from tests.notes import TABLES
from tests.services import Services, migrate, psql

__all__ = ["Postgres", "Valkey", "database_of", "frozen", "postgres", "valkey"]

PASSWORD = "a-password-of-tests"


class Postgres:
    """A migrated PostgreSQL whose data outlives its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._user = postgres_user()
        self._binaries = reachable_binaries(find_engines().postgres, self._user)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        self._running = contextlib.ExitStack()
        if self._user:
            for path in (folder, self._data):
                shutil.chown(path, self._user)
        initdb(self._binaries, self._data, user=self._user, password=PASSWORD)

    @property
    def services(self) -> Services:
        """Its address."""
        return Services(str(self.folder), 5432, "postgres", PASSWORD, "")

    @property
    def environ(self) -> dict[str, str]:
        """The settings that lead the service here."""
        return self.services.environ("postgres")

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        # A commit must be in the log when it returns: these tests kill the server right after.
        options = {**NO_DURABILITY, "synchronous_commit": "on"}
        command = postgres_command(self._binaries, self._data, self.folder, options)
        self._running.enter_context(held(command, log=self.folder / "log", user=self._user))
        wait_for_postgres(self._data)

    def processes(self) -> list[psutil.Process]:
        """The postmaster and its children."""
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        return [postmaster, *postmaster.children()]

    def kill(self) -> None:
        """`kill -9` of every process of it."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        self.stop()

    def stop(self) -> None:
        """End what is left."""
        self._running.close()


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A running, migrated PostgreSQL."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-pg-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        server = Postgres(folder)
        with contextlib.closing(server._running):
            server.start()
            migrate(server.environ)
            psql(server.services, "postgres", TABLES)
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Valkey:
    """A Valkey that can be ended and begun again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "valkey.sock"
        self._running = contextlib.ExitStack()
        self._leash: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = valkey_command(find_engines().valkey, self.socket, self.socket.parent, durable=False)
        self._leash = self._running.enter_context(held(command, log=self.socket.parent / "log"))
        wait_for_valkey(self.socket)

    def processes(self) -> list[psutil.Process]:
        """Its one process."""
        assert self._leash is not None
        return psutil.Process(self._leash.pid).children()

    def stop(self) -> None:
        """End it."""
        self._running.close()


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[Valkey]:
    """A running Valkey."""
    server = Valkey(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[Database]:
    """Yield the service's database of `settings`, open."""
    database = Database(settings, Metrics("1"))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """SIGSTOP: they keep their connections and answer nothing."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
