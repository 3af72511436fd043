"""The compose target: the service of docker-compose.yml on one host, behind its own edge."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.logins import login_problems as unmade_logins
from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.config.secrets import closed_problem
from pipeline.config.sources import secrets_place
from pipeline.engines.docker import docker_problems, ignored_variables, remote_problem
from pipeline.engines.occupant import occupant_of
from pipeline.errors import UsageError
from pipeline.releases.lock import hold_lock
from pipeline.system.ports import address_problem, port_free
from pipeline.targets.common.here import KeptHere
from pipeline.targets.compose.backups import ComposeBackups
from pipeline.targets.compose.database import ComposeDatabase
from pipeline.targets.compose.fleet import ComposeFleet, ComposeWatch
from pipeline.targets.compose.https import HTTPS_PORTS
from pipeline.targets.compose.problems import ignored_files, login_problems, taken_problems
from pipeline.targets.compose.releases import ComposeReleases
from pipeline.targets.compose.secrets import ComposeSecrets
from pipeline.targets.compose.site import Site
from pipeline.targets.compose.stack import project_name_problem

__all__ = ["ComposeTarget"]

log = logging.getLogger(__name__)

MACHINE = Path("/tmp")  # noqa: S108 - wherever TMPDIR leads; the lock is a name, and its text tells who
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, and tried
STORES = {"POSTGRES_HOST": "postgres", "REDIS_HOST": "redis"}  # as docker-compose.yml sets them for the service


class ComposeTarget(KeptHere):
    """`nox -s deploy -- compose`: see `pipeline.targets.Target` for what each method promises."""

    env: ComposeEnvironment
    site: Site

    def __init__(self, project: Project, env: ComposeEnvironment) -> None:
        self.project, self.env = project, env
        self.site = Site(project, env)
        self.releases, self.database = ComposeReleases(self.site), ComposeDatabase(self.site)
        self.secrets, self.watch = ComposeSecrets(self.site), ComposeWatch(self.site)
        self.fleet = ComposeFleet(self.site, self.watch)
        self.backups = ComposeBackups(self.site)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of this folder, and that of the Compose project on this machine, which has no other owner."""
        # The engine has none that ends with its holder. Two folders would share containers, and each its own lock.
        with super().lock(), hold_lock(MACHINE / f"slipway-{self.site.stack.name}.lock"):
            taken = taken_problems(self.site.stack, self.env.name)
            if taken:
                raise UsageError(*taken)
            yield

    def problems(self) -> list[str]:
        """Check Docker, settings, secrets, the project's name and the port."""
        root, site = self.project.root, self.site
        problems = docker_problems(compose=True) or [line for line in [remote_problem()] if line]
        for line in (*ignored_variables(), *ignored_files(root)):
            log.warning(line)
        if not problems and site.chooses_port and (taken := self._port_problems()):
            return taken  # before `.env` is written with this port
        site.ensure_env()
        managed, runs = site.variables.managed, "compose runs a {store} of its own"
        problems += settings_problems(
            root, site.values, runs, STORES, managed=managed.names, source=secrets_place(self.env.secrets)
        )
        problems += [*managed.container_problems(), *self.fleet.monitoring.problems()]
        named, closed = project_name_problem(site.stack.name), closed_problem(site.secrets)
        problems += [problem for problem in (named, closed) if problem]
        scripts = root / "docker/postgres/init-scripts"
        problems += [
            f"{path}: PostgreSQL's user in the container cannot read it: `chmod -R go+rX {scripts.parent}`"
            for path in (scripts, *scripts.iterdir())
            if not path.stat().st_mode & 0o004
        ]
        return problems or self._engine_problems()

    def _engine_problems(self) -> list[str]:
        site = self.site
        taken = taken_problems(site.stack, self.env.name)
        if taken:
            return taken
        if ports := self._port_problems():
            return ports
        variables = site.variables
        if variables.managed.database:
            return []
        return unmade_logins(variables.logins, variables.database) or login_problems(variables)

    def _port_problems(self) -> list[str]:
        site = self.site
        wrong = address_problem(site.address)
        if wrong:
            way = "set one of its addresses in .env, or 0.0.0.0 for all of them"
            return [f"EDGE_ADDRESS: {site.address} {wrong}: {way}"]
        # What our own edge holds now, it gives up when the new one is made; of another address, anybody may have it.
        edges = [one.published for one in site.stack.containers("frontend")]
        mine = {address for published in edges for address in published.get(site.port, ())}
        own = site.address in mine or (mine and {site.address, *mine} & set(EVERYWHERE))
        problems = [] if own else site.port_problems()
        for port in HTTPS_PORTS if site.stack.https else ():
            if not any(port in published for published in edges) and not port_free(port, EVERYWHERE[0]):
                occupant = occupant_of(port, site.project.root)
                problems.append(f"EDGE_DOMAIN: port {port} is taken by {occupant.who}: {occupant.frees}")
        return problems
