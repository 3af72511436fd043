"""The backups of a local environment: the release's own program as a process, with PostgreSQL's on its PATH."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.settings import backup_settings
from pipeline.engines.embedded import throwaway_postgres
from pipeline.engines.occupant import HOME
from pipeline.errors import DeployFailed, ProgramFailed, SlipwayError, UsageError
from pipeline.releases.model import Artifact, short
from pipeline.releases.records import Records
from pipeline.system.run import CommandFailed, run
from pipeline.targets.common import roles
from pipeline.targets.common.backups import CHANGING, IDENTITY, MODULE, answer_of, ask_on, needs_of
from pipeline.targets.common.rights import Throwaway
from pipeline.targets.local.rehearsal import LocalStand
from pipeline.targets.local.site import Site
from pipeline.targets.local.stores import SUPERUSER
from pipeline.targets.local.supervision import clean_environment

__all__ = ["LocalBackups"]

# By the mark of what a deploy starts. A backup has none: it runs beside deploys, which must not end it.
STOP_SECONDS = 60  # from SIGTERM until what it began is removed


class LocalBackups(roles.Backups):
    """See `pipeline.targets.common.roles.Backups`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def run(
        self,
        verb: str,
        *arguments: str,
        told: Callable[[str], None],
        given: Mapping[str, Any] | None = None,
        seconds: float = roles.LONGEST,
    ) -> dict[str, Any]:
        """Run it with the Python of the release that serves, as the owner; the superuser's socket asks nobody."""
        site, release = self.site, self._release()
        place = site.database_environment(owner=True)
        if not site.managed.database:
            place["POSTGRES_SUPERUSER"] = SUPERUSER
        environment = {**place, **(site.redis_environment() if needs_of(verb).redis else {})}
        return self._do(release, verb, *arguments, environment=environment, told=told, given=given, seconds=seconds)

    def fetch(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        """Copy them from the folder of backups, into which the program brings what is only off the host."""
        self.run("verify", name, told=told)
        for path in (self.site.layout.backups / name).iterdir():
            shutil.copyfile(path, folder / path.name)

    def drill(self, name: str, serving: Artifact, told: Callable[[str], None]) -> dict[str, Any]:
        """Restore it into a throwaway PostgreSQL of the engine that the environment has."""
        site, begun = self.site, time.monotonic()
        throwaway = Throwaway(site.project.root, site.logins.owner, site.database)
        stand = LocalStand(site.artifacts, site.engines(), site.base_environment(), throwaway)
        with throwaway_postgres(site.engines(), large=True) as server:
            logins = stand.logins(server)
            place = {"POSTGRES_HOST": server.host, "POSTGRES_PORT": str(server.port), "POSTGRES_DB": site.database}
            owner = {"POSTGRES_USER": logins.login, "POSTGRES_PASSWORD": logins.owner_password}
            superuser = {"POSTGRES_SUPERUSER": server.user, "POSTGRES_SUPERUSER_PASSWORD": server.password}
            try:
                given = {**place, **owner, **superuser}
                drilled = self._do(serving.name, "drill", name, environment=given, told=told)["drilled"]
            except ProgramFailed as error:
                raise DeployFailed(f"{name} is no good: {error.said}") from error
            seconds = {"restore": time.monotonic() - begun}
            begun = time.monotonic()
            told("a replica of the release that serves is asked on it")
            service = {"POSTGRES_USER": logins.user, "POSTGRES_PASSWORD": logins.password}
            with stand.replica(serving, {**site.base_environment(), **place, **service}) as base:
                sent = ask_on(name, serving, base, site.tokens.current)
            seconds["try"] = time.monotonic() - begun
        return {"drilled": drilled, "sent": sent, "seconds": seconds}

    def hint(self) -> str:
        """Give the line for cron."""
        env, root = self.site.env.name, self.site.project.root
        return f"schedule it in cron: `0 3 * * * cd {root} && nox -s backup -- {env}`, and `drill` once a week"

    def _do(
        self,
        release: str,
        verb: str,
        *arguments: str,
        environment: Mapping[str, str],
        told: Callable[[str], None],
        given: Mapping[str, Any] | None = None,
        seconds: float = roles.LONGEST,
    ) -> dict[str, Any]:
        site, python = self.site, self._python(release)
        plain = {name: value for name, value in clean_environment(site.layout.home).items() if name != HOME}
        own = {
            "BACKUP_FOLDER": str(site.layout.backups),
            "BACKUP_KEEP": site.env.kept.keep,
            "RELEASE": release,
            "PATH": os.pathsep.join(map(str, (site.engines().postgres, python.parent, plain["PATH"]))),
            **({HOME: str(site.layout.home)} if verb in CHANGING else {}),
        }
        settings = backup_settings(site.values)
        if not needs_of(verb).identity:
            settings.pop(IDENTITY, None)
        try:
            said = run(
                [str(python), "-m", MODULE, verb, *arguments],
                env={**plain, **site.artifacts.config(release), **settings, **environment, **own},
                cwd=site.artifacts.folder(release),
                timeout=seconds,
                given=None if given is None else json.dumps(given),
                grace=STOP_SECONDS,
                progress=told,
                level=logging.DEBUG,
            )
        except CommandFailed as error:
            return answer_of(error.code, error.said, error.output)
        return answer_of(0, said, "")

    def _release(self) -> str:
        """Return the name of the release that serves. Raise `SlipwayError` where none does."""
        env = self.site.env.name
        serving = Records(self.site.project.state(env) / "releases").serving()
        if serving is None or serving.release is None:
            raise SlipwayError(f"nothing is deployed to {env} yet: `nox -s deploy -- {env}` first")
        return serving.release

    def _python(self, release: str) -> Path:
        """Return the Python that the release's program of backups needs, which is made when it is first needed."""
        artifacts, env = self.site.artifacts, self.site.env.name
        if not artifacts.backup_lock(release).exists():
            raise UsageError(f"release {short(release)} has no program for backups: `nox -s deploy -- {env}` first")
        return artifacts.backup_python(release)
