"""The rehearsal's stand of the local target: a throwaway PostgreSQL and Valkey, and a process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from pipeline.config.logins import Logins
from pipeline.engines.embedded import (
    Engines,
    PostgresServer,
    postgres_user,
    reachable_binaries,
    throwaway_postgres,
    throwaway_valkey,
)
from pipeline.errors import NotReady
from pipeline.releases.model import Artifact
from pipeline.system.run import CommandFailed, run
from pipeline.targets.common.rehearsal import REHEARSAL, cannot_live, fails_on_empty
from pipeline.targets.common.rights import PSQL, Throwaway
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
    throwaway: Throwaway

    @contextmanager
    def database(self, new: Artifact, *to: str) -> Iterator[dict[str, str]]:
        """Yield the environment that leads to a migrated throwaway PostgreSQL."""
        with throwaway_postgres(self.engines) as postgres:
            superuser = {"POSTGRES_SUPERUSER": postgres.user, "POSTGRES_SUPERUSER_PASSWORD": postgres.password}
            logins = self.logins(postgres)
            place = {**self.base, **postgres.environment, "POSTGRES_DB": self.throwaway.database}
            owner = {"POSTGRES_USER": logins.login, "POSTGRES_PASSWORD": logins.owner_password}
            command, folder = migrate_command(self.artifacts, new, "upgrade", *to), self.artifacts.folder(new.name)
            try:
                run(command, env={**place, **owner, **superuser, **REHEARSAL}, cwd=folder, timeout=300)
            except CommandFailed as error:
                raise fails_on_empty(error.problems[0]) from error
            yield {**place, "POSTGRES_USER": logins.user, "POSTGRES_PASSWORD": logins.password}

    def logins(self, postgres: PostgresServer) -> Logins:
        """Make an empty database with the roles of the real one on the throwaway `postgres`; return who logs in."""
        return self.throwaway.make(partial(self._psql, postgres))

    def _psql(self, postgres: PostgresServer, database: str, sql: str) -> None:
        """Run `sql` in a `database` of the throwaway server."""
        place = {"PGHOST": postgres.host, "PGPORT": str(postgres.port), "PGDATABASE": database}
        who = {"PGUSER": postgres.user, "PGPASSWORD": postgres.password}
        program = reachable_binaries(self.engines.postgres, postgres_user()) / PSQL[0]
        run([str(program), *PSQL[1:]], env={**place, **who}, given=sql, timeout=60)

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
