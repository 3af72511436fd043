"""The local target: the whole service on this machine, from PyPI wheels, under a supervisor."""

from __future__ import annotations

from pipeline.config.logins import owner_of
from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import LocalEnvironment, Project
from pipeline.config.sources import secrets_place
from pipeline.engines.embedded import postgres_user
from pipeline.releases.records import read_json
from pipeline.system.ports import port_holder, port_ours_to_open
from pipeline.targets.common.here import KeptHere
from pipeline.targets.local.backups import LocalBackups
from pipeline.targets.local.database import LocalDatabase
from pipeline.targets.local.fleet import LocalFleet, LocalWatch
from pipeline.targets.local.moving import moved_from
from pipeline.targets.local.releases import LocalReleases
from pipeline.targets.local.secrets import LocalSecrets
from pipeline.targets.local.site import Site
from pipeline.targets.local.stores import role_problems
from pipeline.targets.local.supervision import is_marked

__all__ = ["LocalTarget"]

UNUSABLE = ";[]*?"  # comments and patterns in the supervisor's files, which cannot quote them


class LocalTarget(KeptHere):
    """`nox -s deploy`: see `pipeline.targets.Target` for what each method promises."""

    env: LocalEnvironment
    site: Site

    def __init__(self, project: Project, env: LocalEnvironment) -> None:
        self.project, self.env = project, env
        self.site = Site(project, env)
        self.releases, self.database = LocalReleases(self.site), LocalDatabase(self.site)
        self.secrets, self.watch = LocalSecrets(project, env), LocalWatch(self.site)
        self.fleet = LocalFleet(self.site, self.watch)
        self.backups = LocalBackups(self.site)

    def problems(self) -> list[str]:
        """Check settings, secrets, free disk space, the port, and the user that PostgreSQL runs as."""
        root, site = self.project.root, self.site
        if site.chooses_port and (taken := self._port_problems()):
            return taken  # before `.env` is written with this port
        site.ensure_env()
        problems = settings_problems(
            root,
            site.values,
            "local runs a {store} of its own",
            managed=site.managed.names,
            source=secrets_place(self.env.secrets),
        )
        if set(str(root)) & set(UNUSABLE):
            wrong = f"the supervisor's files cannot hold a path with one of {' '.join(UNUSABLE)}"
            return [f"{root}: {wrong}: clone to another folder"]
        problems += site.room_problems()
        if not site.managed.database:
            problems += role_problems(site.logins, site.database) or self._owner_problems()
        if not any("EDGE_PORT: " in problem for problem in problems):
            problems += self._port_problems()
        postgres_user()
        return problems

    def _owner_problems(self) -> list[str]:
        # Another role does not own the tables of the database: neither the new release nor the old one would get ready.
        site, named = self.site, "POSTGRES_OWNER" if self.site.logins.apart else "POSTGRES_USER"
        known = [read_json(site.layout.configs / slot.config / "env.json") for slot in site.replicas.slots()]
        users = [env["POSTGRES_USER"] for env in known if env.get("POSTGRES_DB") == site.database]
        return [
            f".env: {named}: the database {site.database} belongs to the role {owner}: set it back to that"
            for owner in sorted({owner_of(user) for user in users} - {site.logins.owner})
        ]

    def _port_problems(self) -> list[str]:
        site, port = self.site, self.site.port
        if not port_ours_to_open(port):
            return [f"{site.port_setting}: this user may not listen on port {port}: take one of 1024 or above"]
        ours = site.edge.configured_port() == port and "edge" in site.supervisor.processes()
        holder = port_holder(port)
        homes = filter(None, [site.layout.home, moved_from(site.layout)])
        ours = ours or (holder is not None and any(is_marked(holder, home) for home in homes))
        return [] if ours else site.port_problems()
