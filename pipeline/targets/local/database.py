"""The database of a local environment: PostgreSQL as a process, in a folder."""

from __future__ import annotations

import logging

from pipeline.errors import SlipwayError, UsageError
from pipeline.releases.model import Artifact
from pipeline.system.run import CommandFailed, run
from pipeline.targets.common import roles
from pipeline.targets.common.data import OUTSIDE
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.migrating import STOP_SECONDS, limits
from pipeline.targets.common.program import SECONDS, failure
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.local.artifacts import ENGINES_LOCK
from pipeline.targets.local.data import data_majors, judge_data
from pipeline.targets.local.moving import data_folder
from pipeline.targets.local.rehearsal import LocalStand, migrate_command
from pipeline.targets.local.site import Site
from pipeline.targets.local.supervision import clean_environment

__all__ = ["LocalDatabase", "run_program"]

log = logging.getLogger(__name__)

PROGRAM_SECONDS = 600


class LocalDatabase(roles.Database):
    """See `pipeline.targets.common.roles.Database`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Check PostgreSQL's folder against the engine that runs, or would run, on it; a `release` has no engine."""
        site = self.site
        if site.managed.database:  # whether it is the one that was in use, its migrations tell
            return []
        data = data_folder(site.layout)
        found, server = data_majors(data, site.engines_venv(), site.project.root / ENGINES_LOCK)
        return judge_data(site.env.name, data, found, server, expected=expected)

    def runs(self, new: Artifact) -> bool:
        """Return whether PostgreSQL is among the processes, or runs elsewhere; all releases use the same one."""
        return self.site.managed.database or bool(self.site.supervisor.processes().get("postgres"))

    def places(self) -> list[str]:
        """Say where the stores are that others manage."""
        return self.site.managed.described()

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations as the owner, in the release's own folder."""
        site, limit = self.site, limits(self.site.env, *arguments)
        place = site.database_environment(owner=True)
        return run(
            migrate_command(site.artifacts, release, *arguments),
            env={**site.base_environment(), **(place if database else {}), **limit.environment},
            cwd=site.artifacts.folder(release.name),
            timeout=limit.seconds,
            grace=STOP_SECONDS,
            told=log.info if limit.environment else None,
        )

    def run(self, *command: str) -> str:
        """Run the program from the engine's folder of binaries; it connects to PostgreSQL's own socket."""
        site, (program, *arguments) = self.site, command
        if site.managed.database:
            raise SlipwayError(f"{program}: the database is managed by others (DATABASE_URL): run it there")
        return run_program(site, site.logins.owner, program, *arguments)

    def command(self, release: Artifact, module: str, *arguments: str, stdin: str = "") -> str:
        """Run the program as a process, in the release's own folder."""
        site = self.site
        try:
            return run(
                [str(site.artifacts.python(release.name, "backend")), "-m", module, *arguments],
                env={**site.base_environment(), **site.database_environment()},
                cwd=site.artifacts.folder(release.name),
                timeout=SECONDS,
                given=stdin,
                output_level=logging.DEBUG,  # the error has the line that tells
            )
        except CommandFailed as error:
            raise failure(module, error.output) from error

    def upgrade(self) -> roles.Upgrade:
        """Refuse, with the way by a backup: the wheel of the engine has one major, and its folder another."""
        if self.site.managed.database:
            raise UsageError(OUTSIDE)
        name, data = self.site.env.name, data_folder(self.site.layout)
        raise UsageError(
            f"on local, move the data by a backup: `nox -s backup -- {name}` while the old engine runs,"
            f" `nox -s down -- {name}`, `mv {data} {data}-before`, take the new {ENGINES_LOCK},"
            f" `nox -s deploy -- {name} --empty-database`, `nox -s restore -- {name} --backup latest --yes`"
        )

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse on a throwaway PostgreSQL and Valkey of the same engines."""
        site = self.site
        throwaway = Throwaway(site.project.root, site.logins.owner, site.database)
        stand = LocalStand(site.artifacts, site.engines(), site.base_environment(), throwaway)
        rehearse(stand, new, old, site.tokens.current)


def run_program(site: Site, user: str, program: str, *arguments: str, given: str | None = None) -> str:
    """Run a `program` of PostgreSQL on its own socket as `user`, with `given` as standard input; return its output."""
    place = {"PGHOST": str(site.layout.postgres_sockets), "PGUSER": user, "PGDATABASE": site.database}
    command = [str(site.engines().postgres / program), *arguments]
    environment = {**clean_environment(site.layout.home), **place}
    try:
        return run(command, env=environment, timeout=PROGRAM_SECONDS, given=given)
    except CommandFailed as error:
        raise SlipwayError(f"{program}: {telling_line(error.output.splitlines())}") from error
