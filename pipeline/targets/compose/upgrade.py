"""A new major of PostgreSQL on Compose: a second server on a volume of its own, which takes the place of the first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact
from pipeline.system.files import write_whole
from pipeline.system.text import size
from pipeline.system.waiting import attempts
from pipeline.targets.common import roles
from pipeline.targets.common.backups import IDENTITY
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.containers import THROWAWAY
from pipeline.targets.common.data import OUTSIDE, upgrade_command
from pipeline.targets.common.upgrade import COMMIT_SECONDS, FACTS, PLAIN, ROOM, WRITABLE, close_sql, log_ended
from pipeline.targets.compose.backups import ComposeBackups
from pipeline.targets.compose.data import Mount, Seen, Wanted, look, mounts_of, new_volume, read_seen
from pipeline.targets.compose.problems import psql_in
from pipeline.targets.compose.site import Site
from pipeline.targets.compose.stack import FILES
from pipeline.targets.compose.trial import try_container

__all__ = ["ComposeUpgrade", "copy_problems", "missing_roles"]

SERVICE = "postgres"
SAVED = "before-upgrade.json"
COPY = "copy-of-data"  # the file that names the volume with a copy, which is older than the data unless it serves
START_SECONDS = 120  # of an empty PostgreSQL on a busy machine
STOP_SECONDS = 60
PULL_SECONDS = 600
ROLE = re.compile(r'CREATE ROLE (?:"((?:[^"]|"")+)"|(\S+));')


@dataclass
class ComposeUpgrade(roles.Upgrade):
    """See `pipeline.targets.common.roles.Upgrade`."""

    site: Site
    backups: ComposeBackups

    def plan(self) -> roles.NextMajor | None:
        """Compare what runs with docker-compose.yml, and look into the volume that it mounts."""
        site = self.site
        if site.variables.managed.database:
            raise UsageError(OUTSIDE)
        config, running = self._config(), self._running()
        if not site.surroundings.proved_config():
            raise UsageError(f"nothing was proved on {site.env.name} yet: `nox -s deploy -- {site.env.name}`")
        old = mounts_of(site.docker.inspect(running.ident)[0])
        wanted = Wanted.of(config).named(old)
        facts = json.loads(self._psql(running.ident, site.variables.database, FACTS))
        server = str(facts["server"]).split()[0]
        seen = self._look(wanted)
        if seen.server is None:
            raise UsageError(f"{SERVICE}: image {wanted.image} does not say which PostgreSQL it has")
        before, after = int(server.partition(".")[0]), int(seen.server)
        if before == after:
            return None
        if after < before:
            raise UsageError(f"{SERVICE}: {wanted.image} is PostgreSQL {after}, and {before} serves: no data goes back")
        place, home = self._volume(wanted, seen, old), Wanted(running.image, tuple(old)).home(facts["data"])
        assert home is not None  # its data is in a volume, or it would be gone by now
        free = self._free(running.ident, facts["data"])
        if free < facts["bytes"] * ROOM:
            raise UsageError(
                f"the disk of {home} has {size(free)} free, and a copy of {size(facts['bytes'])} needs about"
                f" {size(facts['bytes'] * ROOM)}: make room (`docker system df`)"
            )
        if site.variables.backups.get("BACKUP_RECIPIENTS") and not site.variables.backups.get(IDENTITY):
            raise UsageError(f"{IDENTITY}: is missing, and the backup is encrypted: set it in .env until this is done")
        return roles.NextMajor(
            old=server,
            new=seen.server,
            bytes=facts["bytes"],
            free=free,
            place=place,
            before=str(home),
            removal=f"docker volume rm {home.source}" if not home.bind else f"rm -r {home.source}",
            others=tuple(facts["others"]),
        )

    def _look(self, wanted: Wanted) -> Seen:
        """Return which PostgreSQL the image has, and the clusters in the volumes that it would mount."""
        docker = self.site.docker
        there = docker.ask("volume", "ls", "--format", "{{.Name}}").split()
        mounts = [one for one in wanted.mounts if one.bind or one.source in there]
        try:
            if docker.image(wanted.image) is None:
                docker.do("pull", "--quiet", wanted.image, timeout=PULL_SECONDS)
            return read_seen(docker.ask(*look(self.site.stack.name, wanted, mounts)))
        except SlipwayError as error:
            raise UsageError(f"{SERVICE}: image {wanted.image} cannot be run: {error.problems[0]}") from error

    def _volume(self, wanted: Wanted, seen: Seen, old: list[Mount]) -> str:
        """Return the volume for the new data. Raise `UsageError` unless it is new, or empty."""
        home, env = wanted.home(seen.pgdata), self.site.env.name
        if home is None or home.bind or not home.source or home.source in {one.source for one in old}:
            taken = f"{home} holds the data that serves" if home and not home.bind else "its data needs a named volume"
            raise UsageError(f"{SERVICE}: {taken}: in {FILES[0]}, {new_volume(env, str(seen.server))}")
        if seen.data or seen.closed:
            what = f"has a database already (PostgreSQL {max(seen.data.values())})" if seen.data else "cannot be read"
            raise UsageError(
                f"{SERVICE}: {home} {what}: `docker volume rm {home.source}` if nobody needs it, or name another one"
                f" in {FILES[0]}; then {upgrade_command(env)}"
            )
        return home.source

    def begin(self, place: str, tell: Callable[[str], None]) -> None:
        """Start it as the file defines it, by a name that nobody asks for, and copy the roles with their passwords."""
        site, running = self.site, self._running()
        site.write_secrets()
        self._saved.unlink(missing_ok=True)
        self._end_next()
        write_whole(site.home / COPY, place)
        mark = ("--name", self._next, "--label", f"{THROWAWAY}={site.stack.name}")  # by which `heal` finds it
        site.stack.do("run", "--detach", "--no-deps", *mark, SERVICE, env=site.variables.environment(None))
        for _ in attempts(START_SECONDS, every=0.2, watch=lambda: tell("starting the new server")):
            [facts] = site.docker.inspect(self._next)
            now = Container.of(facts)
            if now.health == "healthy":
                break
            if not now.running:
                raise DeployFailed(f"the new server ended: {last_words(site.docker, self._next)}")
        else:
            raise DeployFailed(f"the new server was not healthy in {START_SECONDS} s: {now.said[:200]}")
        script = 'PGPASSWORD="$(cat /run/secrets/POSTGRES_SUPERUSER_PASSWORD)" exec pg_dumpall --roles-only "$@"'
        login = ("--host=127.0.0.1", "--username=postgres")
        dumped = site.docker.ask("exec", running.ident, "sh", "-c", script, "sh", *login)
        there = self._psql(self._next, "postgres", "SELECT rolname FROM pg_roles;").splitlines()
        self._psql(self._next, "postgres", missing_roles(dumped, there))

    def fill(self, backup: str, told: Callable[[str], None]) -> dict[str, Any]:
        """Let the program of the release that serves do it, as in a drill."""
        database = self.site.variables.database
        quoted = database.replace('"', '""')
        self._psql(self._next, "postgres", f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE);')
        drilled: dict[str, Any] = self.backups.run("drill", backup, told=told, server=self._next)["drilled"]
        return drilled

    def trial(self, serving: Artifact, watch: Callable[[str], None], *, journal: Path, log: Path) -> Smoked:
        """Start a container of the service that the edge does not know."""
        return try_container(self.site, serving, watch, journal=journal, log=log, tries=1, server=self._next)

    def close(self) -> None:
        """Make each session read-only, the server's own setting, and wait for what had begun."""
        said = self._psql(self._running().ident, "postgres", close_sql(COMMIT_SECONDS))
        log_ended(said, COMMIT_SECONDS)

    def switch(self) -> None:
        """Stop the new server where it is beside, and start it as the service."""
        self._end_next()
        self.site.surroundings.exchange(SERVICE, self._saved)

    def switch_back(self, place: str) -> None:
        """Start the old one on its volume again."""
        del place  # which servers there are, the definition of before tells
        if self._saved.exists():
            self.site.surroundings.exchange_back(self._saved)
            self._saved.unlink()
        self._let_write()

    def abandon(self, place: str) -> None:
        """Remove the container and the volume, which nothing else has mounted."""
        self._let_write()
        self._end_next()
        self._saved.unlink(missing_ok=True)
        docker = self.site.docker
        if place in docker.ask("volume", "ls", "--format", "{{.Name}}").split():
            docker.do("volume", "rm", place)

    def switched(self, place: str) -> bool:
        """Read which volume the definition mounts that is put back now."""
        return _mounts(place, self.site.surroundings.proved_config())

    def go_on(self, place: str) -> None:
        """Start it, if a kill came between."""
        del place
        self.site.surroundings.bring_back()

    @property
    def _next(self) -> str:
        return f"{self.site.stack.name}-{SERVICE}-next"

    @property
    def _saved(self) -> Path:
        return self.site.home / SAVED

    def _config(self) -> dict[str, Any]:
        return self.site.stack.config(self.site.variables.environment(None))

    def _running(self) -> Container:
        running = [each for each in self.site.stack.containers(SERVICE) if each.running]
        if not running:
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {self.site.env.name}`")
        return running[-1]

    def _psql(self, ident: str, database: str, sql: str) -> str:
        return psql_in(self.site.docker, ident, database, sql, *PLAIN)

    def _free(self, ident: str, folder: str) -> int:
        said = self.site.docker.ask("exec", ident, "df", "-Pk", folder)
        return int(said.strip().splitlines()[-1].split()[3]) * 1024

    def _let_write(self) -> None:
        if not any(each.running for each in self.site.stack.containers(SERVICE)):
            self.site.surroundings.bring_back()  # somebody has stopped everything since
        self._psql(self._running().ident, "postgres", WRITABLE)

    def _end_next(self) -> None:
        docker = self.site.docker
        if docker.inspect(self._next):
            docker.do("stop", "--time", str(STOP_SECONDS), self._next)
            docker.do("rm", "--volumes", self._next)


def copy_problems(site: Site) -> list[str]:
    """Refuse to serve from a copy of the data that was not switched to, or was switched back from."""
    file = site.home / COPY
    if site.variables.managed.database or not file.exists():
        return []
    place, proved = file.read_text(encoding="utf-8"), site.surroundings.proved_config()
    if not _mounts(place, site.stack.config(site.variables.environment(None))) or _mounts(place, proved):
        return []
    if place not in site.docker.ask("volume", "ls", "--format", "{{.Name}}").split():
        return []
    what = f"{SERVICE}: volume {place} has a copy of the data, and what was written since is not in it"
    return [f"{what}: `docker volume rm {place}`, then {upgrade_command(site.env.name)}, which copies it anew"]


def _mounts(place: str, config: Mapping[str, Any]) -> bool:
    return bool(config) and place in {one.source for one in Wanted.of(config).mounts}


def missing_roles(dumped: str, there: list[str]) -> str:
    """Return what `pg_dumpall --roles-only` has `dumped`, without making the roles that are `there`."""
    kept = []
    for line in dumped.splitlines():
        made = ROLE.fullmatch(line)
        if made and (made[1].replace('""', '"') if made[1] else made[2]) in there:
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"
