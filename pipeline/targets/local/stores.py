"""PostgreSQL and Valkey of the local target: created once, kept running by the supervisor."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from pipeline.config.logins import Logins, login_problems
from pipeline.engines.embedded import (
    ROOT_HOME,
    Engines,
    initdb,
    postgres_command,
    postgres_user,
    reachable_binaries,
    valkey_command,
    wait_for_postgres,
    wait_for_valkey,
)
from pipeline.errors import SlipwayError
from pipeline.targets.local.layout import Layout
from pipeline.targets.local.supervision import Supervisor, program_config

__all__ = ["SUPERUSER", "Stores", "remove_data", "role_problems"]

log = logging.getLogger(__name__)

SUPERUSER = "slipway_superuser"
STOP_SECONDS = 20
LONGEST_NAME = 63  # bytes; PostgreSQL cuts a longer name (NAMEDATALEN) and would then look for another one
BUILT_IN = ("postgres", "template0", "template1")


def role_problems(logins: Logins, database: str) -> list[str]:
    """List why this target cannot create the roles of `logins` or the `database`, one line each with its fix."""
    problems, user = list(login_problems(logins, database)), logins.owner
    named = "POSTGRES_OWNER" if logins.apart else "POSTGRES_USER"
    if user == SUPERUSER or user.startswith("pg_"):
        problems.append(f".env: {named}: is reserved by PostgreSQL or by the pipeline: choose another name")
    if database in BUILT_IN:
        problems.append(".env: POSTGRES_DB: is reserved by PostgreSQL: choose another name")
    problems += [
        f".env: {variable}: is longer than {LONGEST_NAME} bytes: choose a shorter name"
        for variable, name in ((named, user), ("POSTGRES_DB", database))
        if len(name.encode()) > LONGEST_NAME
    ]
    return problems


def remove_data(layout: Layout) -> None:
    """Remove the data of PostgreSQL and Valkey."""
    shutil.rmtree(layout.postgres, ignore_errors=True)
    shutil.rmtree(layout.valkey, ignore_errors=True)
    if layout.postgres.is_relative_to(ROOT_HOME):
        shutil.rmtree(layout.postgres.parent, ignore_errors=True)


@dataclass(frozen=True)
class Stores:
    """The data stores of a layout."""

    layout: Layout
    supervisor: Supervisor
    engines: Engines

    @property
    def valkey_socket(self) -> Path:
        """Where Valkey listens."""
        return self.layout.run / "valkey.sock"

    def ensure(self, names: Collection[str], max_connections: int) -> None:
        """Start those of `names` (`postgres`, `valkey`), PostgreSQL with `max_connections`; create its cluster."""
        user = postgres_user()
        binaries = reachable_binaries(self.engines.postgres, user)
        if "postgres" in names:
            self._ensure_cluster(binaries, user)
        options = {"max_connections": str(max_connections)}
        commands = {
            "postgres": (
                postgres_command(binaries, self.layout.postgres, self.layout.postgres_sockets, options),
                "INT",
                user,
            ),
            "valkey": (
                valkey_command(self.engines.valkey, self.valkey_socket, self.layout.valkey, durable=True),
                "TERM",
                None,
            ),
        }
        running = self.supervisor.processes()
        for name in names:
            command, signal, as_user = commands[name]
            if name in running and running[name].state in ("FATAL", "EXITED", "STOPPED", "BACKOFF"):
                self.supervisor.stop(name, lambda: None)  # its command may be another one by now
                running.pop(name)
            if name not in running:
                self.supervisor.add(
                    name,
                    program_config(
                        name,
                        command,
                        directory=Path("/"),
                        stop_seconds=STOP_SECONDS,
                        priority=10,
                        stop_signal=signal,
                        user=as_user,
                    ),
                )
        try:
            if "postgres" in names:
                wait_for_postgres(self.layout.postgres)
        except SlipwayError as error:
            raise SlipwayError(f"{error.problems[0]}; see {self.layout.home / 'logs'}") from error
        try:
            if "valkey" in names:
                wait_for_valkey(self.valkey_socket)
        except SlipwayError as error:  # it is a cache, and the service does without
            log.warning(
                f"{error.problems[0]}; see {self.layout.log('valkey')}. Nothing is cached until it runs. If its data is"
                f" broken, start it empty: `rm -r {self.layout.valkey}`, then deploy"
            )

    def ensure_role(self, user: str, password: str | None, database: str) -> None:
        """Create the owner's role (not a superuser) and its database, or set the role's password to a changed one."""
        asyncio.run(self._ensure_role(user, password, database))

    def _ensure_cluster(self, binaries: Path, user: str | None) -> None:
        data = self.layout.postgres
        if user:
            ROOT_HOME.mkdir(parents=True, exist_ok=True)
            ROOT_HOME.chmod(0o755)  # regardless of the umask: PostgreSQL's user has to pass through
            for folder in (data.parent, self.layout.postgres_sockets):
                folder.mkdir(exist_ok=True, mode=0o700)
                shutil.chown(folder, user)
        if (data / "PG_VERSION").exists():  # of the right major: see `pipeline.targets.local.data`
            return
        part = data.with_name("postgres.part")  # so that a deploy that dies here does not leave half a cluster
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700)
        if user:
            shutil.chown(part, user)
        # No password on this socket: only the owner of the data can open its folder anyway, and a change of
        # POSTGRES_PASSWORD in .env must lock out neither the running replicas nor the next ones.
        initdb(binaries, part, user=user, superuser=SUPERUSER)
        part.rename(data)

    async def _ensure_role(self, user: str, password: str | None, database: str) -> None:
        connection = await asyncpg.connect(
            host=str(self.layout.postgres_sockets),
            port=5432,
            user=SUPERUSER,
            database="postgres",
            timeout=10,
            command_timeout=30,
        )
        try:
            verb = (
                "ALTER" if await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", user) else "CREATE"
            )
            await connection.execute(
                await connection.fetchval(
                    f"SELECT format('{verb} ROLE %I LOGIN NOSUPERUSER PASSWORD %L', $1::text, $2::text)", user, password
                )
            )
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
                await connection.execute(
                    await connection.fetchval(
                        "SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text)", database, user
                    )
                )
        finally:
            await connection.close()
