"""Can the release that runs live with the new schema? Tried on a throwaway PostgreSQL and Valkey, in seconds."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines import Engines, PostgresServer, throwaway_postgres, throwaway_valkey
from pipeline.errors import DeployFailed
from pipeline.leash import held
from pipeline.model import Artifact
from pipeline.proof.results import Failure
from pipeline.proof.smoke import smoke
from pipeline.run import CommandFailed, run
from pipeline.targets.local.artifacts import Artifacts
from pipeline.targets.local.replicas import check_ready, last_words
from pipeline.targets.local.supervision import free_port

__all__ = ["Rehearsal", "migrate_command"]

START_SECONDS = 30
SMOKE_TIMEOUT_SECONDS = 10


def migrate_command(artifacts: Artifacts, release: Artifact, *arguments: str) -> list[str]:
    """The command line of RELEASE's migrations; its working folder is the release's."""
    return [str(artifacts.python(release.name, "migrate")), "-m", "backend.migrations", *arguments]


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal of the migrations. `base` is the environment of commands without any database in it."""

    artifacts: Artifacts
    engines: Engines
    base: dict[str, str]
    token: str | None
    say: Callable[[str], None]

    def run(self, new: Artifact, old: Artifact | None, watch: Callable[[], None]) -> None:
        """Migrate an empty database with NEW, then let one replica of OLD pass its own smoke requests there."""
        failures = self._failures(new, (), old, watch)
        if failures and old and old.revision:
            # What fails on the old schema too is no fault of the migration, which may be what mends it.
            known = {one.request for one in self._failures(new, ("--to", old.revision), old, watch)}
            failures = [one for one in failures if one.request not in known]
        if failures and old:
            raise DeployFailed(f"the running release {old.name} cannot live with the new schema: {_told(failures[0])}")

    def _failures(
        self, new: Artifact, to: tuple[str, ...], old: Artifact | None, watch: Callable[[], None]
    ) -> list[Failure]:
        """What fails of OLD's smoke requests on a database that NEW's migrations brought TO a revision."""
        with ExitStack() as stack:
            postgres = stack.enter_context(throwaway_postgres(self.engines))
            environment = {**self.base, **_database(postgres)}
            command, folder = migrate_command(self.artifacts, new, "upgrade", *to), self.artifacts.folder(new.name)
            try:
                run(command, say=self.say, env=environment, cwd=folder, timeout=300)
            except CommandFailed as error:
                raise DeployFailed(f"a migration fails on an empty database: {error.problems[0]}") from error
            if old is None:
                return []
            valkey = stack.enter_context(throwaway_valkey(self.engines))
            socket = stack.enter_context(self._replica(old, {**environment, "REDIS_HOST": valkey.socket}, watch))
            return smoke(old.requests, f"unix:{socket}", self.token, SMOKE_TIMEOUT_SECONDS)

    @contextmanager
    def _replica(self, release: Artifact, environment: dict[str, str], watch: Callable[[], None]) -> Iterator[Path]:
        """One replica of RELEASE outside the supervisor: its Unix socket."""
        folder = Path(tempfile.mkdtemp(prefix="slipway-"))
        socket, log = folder / "replica.sock", folder / "replica.log"
        own = {
            "BACKEND_HOST": str(socket),
            "METRICS_PORT": str(free_port()),
            "RELEASE": release.name,
            "DRAIN_SECONDS": "0",
        }
        command = [str(self.artifacts.python(release.name, "backend")), "-m", "backend"]
        variables = {**self.artifacts.config(release.name), **environment, **own}
        working_folder = os.fspath(self.artifacts.folder(release.name))
        with held(command, log=log, env=variables, cwd=working_folder, remove=folder) as process:
            deadline, answer, ready = time.monotonic() + START_SECONDS, "it did not answer /ready", False
            while not ready:
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline:
                    words = last_words(log, 0) if ended else answer
                    raise DeployFailed(f"the running release {release.name} cannot live with the new schema: {words}")
                watch()
                time.sleep(0.03)
                ready, answer = check_ready(socket, answer)
            yield socket


def _told(failure: Failure) -> str:
    return f"{failure.method} {failure.path}: {failure.detail}"


def _database(postgres: PostgresServer) -> dict[str, str]:
    return {
        "POSTGRES_HOST": postgres.host,
        "POSTGRES_PORT": str(postgres.port),
        "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password,
        "POSTGRES_DB": "postgres",
    }
