"""The rehearsal's stand of the local target: a throwaway PostgreSQL and Valkey, and a process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from pipeline.engines.embedded import Engines, throwaway_postgres, throwaway_valkey
from pipeline.errors import NotReady
from pipeline.releases.model import Artifact
from pipeline.system.run import CommandFailed, run
from pipeline.targets.common.rehearsal import REHEARSAL, cannot_live, fails_on_empty
from pipeline.targets.local.artifacts import Artifacts
from pipeline.targets.local.beside import beside

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
        with throwaway_valkey(self.engines) as valkey:
            variables = {**self.artifacts.config(release.name), **database, "REDIS_HOST": valkey.socket}
            with ExitStack() as stack:
                log = stack.enter_context(tempfile.TemporaryFile())
                try:
                    replica = beside(self.artifacts, release.name, variables, log=log, deadline=START_SECONDS)
                    address = stack.enter_context(replica)
                except NotReady as error:
                    raise cannot_live(release, error.why) from error
                yield address
