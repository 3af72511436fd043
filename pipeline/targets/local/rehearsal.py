"""The rehearsal's stand of the local target: a throwaway PostgreSQL and Valkey, and a process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.embedded import Engines, throwaway_postgres, throwaway_valkey
from pipeline.releases.model import Artifact
from pipeline.system.leash import held
from pipeline.system.ports import free_port
from pipeline.system.run import CommandFailed, run
from pipeline.system.waiting import attempts
from pipeline.targets.common.rehearsal import REHEARSAL, cannot_live, fails_on_empty
from pipeline.targets.local.artifacts import Artifacts
from pipeline.targets.local.replicas import check_ready, last_log_line

__all__ = ["LocalStand", "migrate_command"]

START_SECONDS = 30


def migrate_command(artifacts: Artifacts, release: Artifact, *arguments: str) -> list[str]:
    """Return the migrations command of `release`, to be run in the release's folder."""
    return [str(artifacts.python(release.name, "migrate")), "-m", "backend.migrations", *arguments]


@dataclass(frozen=True)
class LocalStand:
    """See `pipeline.targets.common.rehearsal.Stand`. `base` is the environment of commands without a database."""

    artifacts: Artifacts
    engines: Engines
    base: dict[str, str]

    @contextmanager
    def database(self, new: Artifact, *to: str) -> Iterator[dict[str, str]]:
        """Yield the environment that leads to a migrated throwaway PostgreSQL."""
        with throwaway_postgres(self.engines) as postgres:
            environment = {**self.base, **postgres.environment}
            command, folder = migrate_command(self.artifacts, new, "upgrade", *to), self.artifacts.folder(new.name)
            try:
                run(command, env={**environment, **REHEARSAL}, cwd=folder, timeout=300)
            except CommandFailed as error:
                raise fails_on_empty(error.problems[0]) from error
            yield environment

    @contextmanager
    def replica(self, release: Artifact, database: dict[str, str]) -> Iterator[str]:
        """Yield the address of one replica of `release`, on a Unix socket and outside the supervisor."""
        folder = Path(tempfile.mkdtemp(prefix="slipway-throwaway-"))
        socket, log = folder / "replica.sock", folder / "replica.log"
        own = {
            "BACKEND_HOST": str(socket),
            "METRICS_PORT": str(free_port()),
            "RELEASE": release.name,
            "DRAIN_SECONDS": "0",
        }
        command = [str(self.artifacts.python(release.name, "backend")), "-m", "backend"]
        working_folder = os.fspath(self.artifacts.folder(release.name))
        with throwaway_valkey(self.engines) as valkey:
            variables = {**self.artifacts.config(release.name), **database, "REDIS_HOST": valkey.socket, **own}
            with held(command, log=log, env=variables, cwd=working_folder, remove=folder) as process:
                answer = "it did not answer /ready"
                for _ in attempts(START_SECONDS, every=0.03):
                    ready, answer = check_ready(socket, answer)
                    if ready:
                        break
                    if process.poll() is not None:
                        raise cannot_live(release, last_log_line(log, 0))
                else:
                    raise cannot_live(release, answer)
                yield f"unix:{socket}"
