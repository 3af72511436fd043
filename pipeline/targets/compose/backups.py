"""The backups of a compose environment: containers of the service `backup`, one for each question."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import Any

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.targets.common import roles
from pipeline.targets.common.backups import CHANGING, IDENTITY, SUPERUSER, answer_of, needs_of
from pipeline.targets.compose.artifacts import Kept
from pipeline.targets.compose.drill import answer_of_failed, drill, without_noise
from pipeline.targets.compose.scheduled import LABEL, STOP_SECONDS, VERB
from pipeline.targets.compose.site import Site

__all__ = ["ComposeBackups"]

log = logging.getLogger(__name__)

SERVICE, FOLDER = "backup", "/backups"


class ComposeBackups(roles.Backups):
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
        server: str | None = None,
    ) -> dict[str, Any]:
        """Run it in a container of its own, with the image, the volume and the networks of the scheduled backups.

        Another `server` than the one that serves has the superuser's password of that one.
        """
        site = self.site
        if verb in CHANGING:
            self._end_left()
        site.write_secrets()
        environment = self._environment()
        name = f"{site.stack.name}-backup-{verb}-{token_hex(3)}"
        labels = [word for label in (f"{LABEL}={site.stack.name}", f"{VERB}={verb}") for word in ("--label", label)]
        place = ("--env", f"POSTGRES_HOST={server}") if server else ()
        with self._lent(verb, superuser=server is not None) as options:
            own = (*labels, *options, *place)
            try:
                said = site.stack.do(
                    *("run", "--rm", "--no-deps", "-T", "--name", name, *own, SERVICE, verb, *arguments),
                    env=environment,
                    given=json.dumps(given) if given is not None else None,
                    timeout=seconds,
                    grace=STOP_SECONDS,
                    progress=without_noise(told),
                    output_level=logging.DEBUG,
                )
            except SlipwayError as error:
                return answer_of_failed(error)
            finally:
                site.backups.end(name)
        return answer_of(0, said, "")

    def fetch(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        """Copy them out of the volume, into which the program brings what is only off the host."""
        site = self.site
        told(f"{name} is being fetched")
        self.run("verify", name, told=told)
        mount = f"type=volume,source={site.stack.backups},target={FOLDER},readonly"
        mark, image = ("--label", f"{LABEL}={site.stack.name}"), self._image(site.backups.serving())
        ident = site.docker.do("create", *mark, "--network", "none", "--mount", mount, image, "list").strip()
        try:
            site.docker.do("cp", f"{ident}:{FOLDER}/{name}/.", str(folder), timeout=roles.LONGEST)
        finally:
            site.docker.do("rm", "--force", ident)

    def drill(self, name: str, serving: Artifact, told: Callable[[str], None]) -> dict[str, Any]:
        """Restore it into a throwaway PostgreSQL of the image that the environment's has."""
        with self._lent("drill") as options:
            return drill(
                self.site, name, serving, told, image=self._image(self.site.backups.serving()), options=options
            )

    def hint(self) -> str:
        """Name the service of docker-compose.yml, and its times."""
        env = self.site.env
        if env.backups is None:
            table = f"[tool.slipway.environments.{env.name}]"
            return f'none is scheduled: `backups = {{ keep = "{env.kept.keep}" }}` in {table}, then deploy'
        times = self.site.variables.backups.get("BACKUP_SCHEDULE", "03:00")
        return f"container `{SERVICE}` makes a backup at {times} UTC (BACKUP_SCHEDULE); a drill is yours to schedule"

    def _environment(self) -> dict[str, str]:
        site = self.site
        if not site.variables.managed.database and not any(each.running for each in site.stack.containers("postgres")):
            raise SlipwayError(f"PostgreSQL does not run: `nox -s deploy -- {site.env.name}`")
        kept = site.backups.serving()
        image = self._image(kept)
        site.backups.make_volume()
        return {**site.variables.environment(kept), "BACKUP_IMAGE": image}

    def _image(self, kept: Kept | None) -> str:
        """Return the image of `kept`, the release that serves; where it has none, one of the working tree."""
        site = self.site
        if kept and kept.images.backup and site.docker.image(kept.images.backup):
            return kept.images.backup
        log.info("no release with an image of backups serves: building one of the working tree")
        return site.images.build_backup()

    @contextmanager
    def _lent(self, verb: str, *, superuser: bool = False) -> Iterator[list[str]]:
        """Yield the options of `docker run` that mount the secrets that `verb` needs; `superuser`: that one's, too."""
        site, needs, files, options = self.site, needs_of(verb), dict[str, Path](), list[str]()
        needs = replace(needs, superuser=needs.superuser or superuser)
        if needs.superuser and not site.variables.managed.database:
            files[SUPERUSER_PASSWORD] = site.secrets / SUPERUSER_PASSWORD
            options = ["--env", f"POSTGRES_SUPERUSER={SUPERUSER}"]
        if needs.redis:
            files |= {one: site.secrets / one for one in ("REDIS_PASSWORD", "REDIS_URL")}
        with ExitStack() as stack:
            identity = site.variables.backups.get(IDENTITY)
            if needs.identity and identity:
                files[IDENTITY] = stack.enter_context(site.lend(identity))
            mounts = [word for one, file in files.items() for word in ("--volume", f"{file}:/run/secrets/{one}:ro")]
            yield [*options, *mounts]

    def _end_left(self) -> None:
        """End what a killed restore has left: it would go on, and change what this one looks at."""
        site = self.site
        for name, verb in site.backups.questions().items():
            if verb in CHANGING:
                log.warning(f"ending {name}, which a killed restore has left")
                site.backups.end(name)
