"""The database of a compose environment: PostgreSQL in a container, on a volume."""

from __future__ import annotations

import logging

from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.run import CommandFailed
from pipeline.targets.common import roles
from pipeline.targets.common.containers import ContainerStand
from pipeline.targets.common.migrating import STOP_SECONDS, limits
from pipeline.targets.common.program import SECONDS, failure, shell_script
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.compose.backups import ComposeBackups
from pipeline.targets.compose.data import find_data_problems
from pipeline.targets.compose.site import Site
from pipeline.targets.compose.upgrade import ComposeUpgrade

__all__ = ["ComposeDatabase"]

log = logging.getLogger(__name__)

START_SECONDS = 30  # of a container, on a busy machine


class ComposeDatabase(roles.Database):
    """See `pipeline.targets.common.roles.Database`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Check PostgreSQL's volume against the image that would run on it; a `release` has no image of its own."""
        if self.site.variables.managed.database:  # whether it is the one that was in use, its migrations tell
            return []
        return find_data_problems(self.site.variables, expected=expected)

    def places(self) -> list[str]:
        """Say where the stores are that others manage, and which way leads there."""
        managed = self.site.variables.managed
        way = f"through network {self.site.stack.network('frontend')}, as the service is"
        return [*managed.described(), *([f"migrations run {way}"] if managed.database else [])]

    def runs(self, new: Artifact) -> bool:
        """Return whether PostgreSQL's container runs, or one elsewhere; all releases use the same one."""
        return self.site.variables.managed.database or any(
            container.running for container in self.site.stack.containers("postgres")
        )

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations in a one-shot container of the release's own image, as the owner."""
        site, kept = self.site, self.site.artifacts.find(release.name)
        if not database:
            return site.docker.ask("run", "--rm", "--network", "none", kept.images.migrate, *arguments)
        limit = limits(site.env, *arguments)
        own = [word for name, value in limit.environment.items() for word in ("--env", f"{name}={value}")]
        try:
            return site.stack.do(
                *("run", "--rm", "--no-deps", "-T", *own, "migrate", *arguments),
                env=site.variables.environment(kept),
                timeout=limit.seconds,
                grace=STOP_SECONDS,
                told=log.info if limit.environment else None,
            )
        finally:
            if limit.environment:
                self._stop_migrations()

    def _stop_migrations(self) -> None:
        """End a one-shot container whose client was given up: that alone does not end it."""
        labels = (f"project={self.site.stack.name}", "service=migrate", "oneoff=True")
        filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
        left = self.site.docker.ask("ps", "--quiet", *filters).split()
        if left:
            self.site.docker.do("stop", "--time", str(STOP_SECONDS), *left)
            self.site.docker.succeeds("rm", *left)

    def run(self, *command: str) -> str:
        """Run the program in PostgreSQL's own container."""
        variables = self.site.variables
        if variables.managed.database:
            raise SlipwayError(f"{command[0]}: the database is managed by others (DATABASE_URL): run it there")
        place = {
            "PGHOST": "127.0.0.1",
            "PGUSER": variables.logins.login,
            "PGDATABASE": variables.database,
            "PGPASSWORD": variables.logins.owner_password,
        }
        running = [each for each in self.site.stack.containers("postgres") if each.running]
        if not running:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        # Only the names: a value on docker's command line would show in the list of processes.
        names = [option for name in place for option in ("--env", name)]
        return self.site.docker.do("exec", *names, running[0].ident, *command, env=place)

    def command(self, release: Artifact, module: str, *arguments: str, stdin: str = "") -> str:
        """Run the program in a one-off container, in place of the release's migrations."""
        site, script = self.site, shell_script(module, *arguments)
        try:
            return site.stack.do(
                *("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "migrate", "-ec", script),
                env=site.variables.environment(site.artifacts.find(release.name)),
                given=stdin,
                timeout=SECONDS + START_SECONDS,
                output_level=logging.DEBUG,  # the error has the line that tells
            )
        except SlipwayError as error:
            if isinstance(error.__cause__, CommandFailed):
                raise failure(module, error.__cause__.output) from error
            raise

    def upgrade(self) -> roles.Upgrade:
        """Return the way by a second container on a second volume."""
        return ComposeUpgrade(self.site, ComposeBackups(self.site))

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse on a throwaway PostgreSQL and Redis of the same images."""
        site = self.site
        images = (self._image("postgres"), self._image("redis"))
        throwaway = Throwaway(site.project.root, site.variables.logins.owner, site.variables.database)
        stand = ContainerStand(site.stack.name, site.docker, site.artifacts.find, images, site.secrets, throwaway)
        rehearse(stand, new, old, site.variables.tokens.current)

    def _image(self, service: str) -> str:
        """Return the image of a `service` of docker-compose.yml."""
        site = self.site
        return str(site.stack.services(site.variables.environment(None))[service]["image"])
