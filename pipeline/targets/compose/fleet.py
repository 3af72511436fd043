"""The replicas of a compose environment, with PostgreSQL, Redis and the edge: containers of one Compose project."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.secrets import allow_by_hand
from pipeline.config.settings import split_secrets
from pipeline.engines.docker import docker_problems
from pipeline.errors import DeployFailed, UsageError
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact, Running, short
from pipeline.system.streams import Stream
from pipeline.system.waiting import Deadline
from pipeline.targets.common import roles
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.containers import sweep
from pipeline.targets.common.delivery import missing_secrets, unmounted
from pipeline.targets.common.diagnosis import FOLLOWED_LINES, LOG_LINES, RECENT_SECONDS
from pipeline.targets.common.rights import bring_env_over
from pipeline.targets.common.rolling import roll
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.compose.drill import throwaway_of
from pipeline.targets.compose.https import certificate_problem
from pipeline.targets.compose.monitoring import Monitoring
from pipeline.targets.compose.problems import login_problems, superuser_psql, taken_problems, volume_findings
from pipeline.targets.compose.redis import accept_passwords, forget_passwords
from pipeline.targets.compose.replicas import SERVICE, SOCKETS, slot_of
from pipeline.targets.compose.rollout import ComposeRollout
from pipeline.targets.compose.site import Site
from pipeline.targets.compose.stack import FILES, passed_secrets
from pipeline.targets.compose.surroundings import started_by_hand
from pipeline.targets.compose.trial import try_container
from pipeline.targets.compose.upgrade import copy_problems

__all__ = ["ComposeFleet", "ComposeWatch"]

log = logging.getLogger(__name__)

DATA_FOLDER = "/var/lib/postgresql"


class ComposeWatch(roles.Watch):
    """See `pipeline.targets.common.roles.Watch`. Only a deploy changes the number of replicas here."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.started: dict[str, Container] = {}  # by the last rollout: ID → the container when it got ready

    def trouble(self) -> str | None:
        """Report a replica whose process is no longer the one that got ready, or that is unhealthy."""
        docker = self.site.docker
        seen = {facts["Id"]: Container.of(facts) for facts in docker.inspect(*self.started)}
        for ident, before in self.started.items():
            now, release = seen.get(ident), before.labels.get("slipway.release", "")
            if now is None:
                return f"release {short(release)}: its replica {before.name} was removed after it was ready"
            what = f"worker {before.service} of " if before.service != SERVICE else ""
            if not now.running or now.started != before.started:
                return f"{what}release {short(release)} ended after it was ready: {last_words(docker, ident)}"
            if now.health == "unhealthy":
                return f"{what}release {short(release)} became unhealthy after it was ready: {now.said[:200]}"
        return None

    def remarks(self) -> list[str]:
        """Say what keeps the edge from HTTPS: the traffic of the proof comes by HTTP."""
        return _https_findings(self.site)


def _https_findings(site: Site) -> list[str]:
    logs = f"docker compose --project-name {site.stack.name} logs frontend"
    problem = certificate_problem(site.values["EDGE_DOMAIN"], logs=logs) if site.stack.https else None
    return [problem] if problem else []


class ComposeFleet(roles.Fleet):
    """See `pipeline.targets.common.roles.Fleet`. `watch` is told which containers a rollout started."""

    def __init__(self, site: Site, watch: ComposeWatch) -> None:
        self.site, self.watch, self.monitoring = site, watch, Monitoring(site)

    def running(self) -> Running:
        """Return the replicas, and what is wrong with the edge and the data stores around them."""
        site = self.site
        around = site.surroundings.containers()
        problems = [
            f"{name} is {f'{around[name].state} {around[name].health}'.strip() if name in around else 'missing'}"
            for name in site.variables.surroundings
            if name not in around or not around[name].ready
        ]
        changed = [name for name in site.surroundings.changed() if name in site.variables.surroundings]
        problems += [f"{name} no longer matches {FILES[0]} and .env" for name in changed]
        problems += [*site.backups.drift(), *self.monitoring.drift()]
        routed = site.replicas.routed()
        problems += [
            f"the edge does not route to {replica.name}"
            for replica in site.replicas.all()
            if slot_of(replica) not in (None, *routed)
        ]
        replicas = site.replicas.seen(site.variables.wanted)
        releases = {each.release for each in replicas if site.artifacts.knows(each.release)}
        workers = site.workers.seen(site.artifacts.find(releases.pop()) if len(releases) == 1 else None)
        return Running(replicas=replicas, wanted=site.env.replicas, problems=tuple(problems), workers=workers)

    def findings(self) -> list[str]:
        """Report containers that the engine restarted recently, and a data store whose disk is nearly full."""
        site, findings = self.site, list[str]()
        for each in site.stack.containers():
            if each.restarts and time.time() - datetime.fromisoformat(each.started).timestamp() < RECENT_SECONDS:
                words = last_words(site.docker, each.ident)
                findings.append(
                    f"{each.name} ended and was started again {each.restarts} times, last at {each.started}: {words}"
                )
        for each in site.stack.containers("postgres"):
            if each.running:
                findings += volume_findings(each.name, site.docker.ask("exec", each.ident, "df", "-Pk", DATA_FOLDER))
        return [*findings, *site.backups.findings(), *self.monitoring.findings(), *_https_findings(site)]

    def stores(self, release: str) -> Mapping[str, Any]:
        """Ask PostgreSQL and Redis from within a replica of the release."""
        replicas = self.site.replicas.all()
        mine = [each for each in replicas if each.running and each.labels.get("slipway.release") == release]
        if not mine:
            return {}
        return read_stores(self.site.docker.ask("exec", mine[0].ident, "python", *probe_command("database", "redis")))

    def log(self, release: str) -> str:
        """Return the end of each container's log, which is removed with it."""
        mine = [each for each in self.site.replicas.all() if each.labels.get("slipway.release") == release]
        return "".join(self.site.docker.logs(each.ident, LOG_LINES) for each in mine)

    def logs(self, *, follow: bool) -> list[Stream]:
        """Ask the engine, which keeps 30 MB of each container."""
        streams = []
        for each in (*self.site.replicas.all(), *self.site.workers.all()):
            if each.running or not follow:
                # Its start makes a container that was started again another stream.
                now = ("--follow", "--since", each.started, f"--tail={FOLLOWED_LINES}") if follow else ()
                streams.append(Stream(each.name, ("docker", "logs", *now, each.ident)))
        return streams

    def token(self) -> str | None:
        """Return a token that the replicas accept, if there is one."""
        return self._shared_token()[0]

    def token_changes(self) -> bool:
        """Return whether there is none."""
        return not self._shared_token()[1]

    def _shared_token(self) -> tuple[str | None, bool]:
        """Compare the tokens with those of the replicas, each of which has hashes of its own as a label."""
        tokens = self.site.variables.tokens
        return tokens.shared(each.labels.get("slipway.token", tokens.mark) for each in self.site.replicas.all())

    def undelivered(self, secrets: Sequence[str], release: str | None) -> list[str]:
        """List what `.env` lacks, and what docker-compose.yml does not pass on."""
        site = self.site
        missing = missing_secrets(secrets, split_secrets(site.values)[1], release, site.env.secrets)
        if missing:
            return missing
        passed = passed_secrets(site.stack.services(site.variables.environment(None))["backend"])
        return unmounted(FILES[0], [name for name in secrets if name not in passed])

    def heal(self) -> bool:
        """Remove the throwaway containers of a killed deploy; restart what was stopped with the engine or by hand."""
        site = self.site
        swept = sweep(site.docker, site.stack.name)
        if swept:
            log.warning(f"removed {len(swept)} throwaway containers and networks that a killed deploy had left")
        site.forget_lent()
        site.write_secrets()
        if not site.surroundings.heal():
            return False
        for each in (*site.replicas.all(), *site.workers.all()):
            if not each.running and each.labels.get("slipway.release"):
                site.docker.do("start", each.ident)
        return True

    def objections(self, new: Artifact) -> list[str]:
        """Pull the images of PostgreSQL, Redis and the edge, and try what changed of them beside what runs."""
        site = self.site
        for name in site.workers.strangers(site.artifacts.find(new.name)):
            way = f"`docker compose --project-name {site.stack.name} up --detach {name}`"
            log.warning(f"{FILES[0]}: `{name}` does not run the release's image, so a deploy leaves it alone: {way}")
        by_name = [one.name for one in site.replicas.all() if SOCKETS not in one.mounts]
        if by_name:  # the edge of today could not reach them
            way = f"run `nox -s down -- {site.env.name}`, which keeps the data, then deploy"
            return [f"{', '.join(by_name)}: of an earlier Slipway, whose edge asked names and not sockets: {way}"]
        site.write_secrets()
        return copy_problems(site) or site.surroundings.problems()

    def prepare(self, new: Artifact) -> None:
        """Start PostgreSQL, Redis and the edge, none of which is part of a release."""
        site = self.site
        site.write_secrets()
        if not site.variables.edge_image():  # the first release here was built elsewhere
            site.variables.frontend = site.images.build_frontend()
        if stores := [name for name in site.variables.surroundings if name != "frontend"]:
            site.surroundings.start(*stores)
            accept_passwords(site)
        if not site.variables.managed.database:
            self._see_to_roles()
        before = {container.ident for container in site.stack.containers("frontend") if container.running}
        started = time.monotonic()
        site.surroundings.start("frontend")
        after = {container.ident for container in site.stack.containers("frontend")}
        if before and before != after:
            seconds = time.monotonic() - started
            log.warning(f"the edge itself changed: its port was closed for up to {seconds:.1f} s")

    def _see_to_roles(self) -> None:
        site, variables = self.site, self.site.variables
        psql = partial(superuser_psql, site.stack, variables.database)
        if bring_env_over(site.project.root, variables.database, variables.logins, psql):
            site.read_settings()
            site.variables.frontend = variables.frontend
            site.write_secrets()
        wrong = login_problems(site.variables)
        if wrong:
            raise DeployFailed(*wrong)

    def trial(
        self,
        new: Artifact,
        watch: Callable[[str], None],
        *,
        journal: Path,
        log: Path,
        tries: int,
        database: str | None = None,
    ) -> Smoked:
        """Start a container as Compose defines the service, without a slot in the edge, and ask it from inside."""
        return try_container(self.site, new, watch, journal=journal, log=log, tries=tries, database=database)

    def put_back(self, old: Artifact) -> None:
        """Put back PostgreSQL, Redis and the edge as they were proved last."""
        self.site.surroundings.put_back()

    def keep(self) -> None:
        """Note their definitions, which `put_back` needs; from now on a plain `docker compose up` replaces nothing.

        The container that makes backups follows, and what watches the service: a first backup and the start of those
        would be in the way of a proof.
        """
        self.site.surroundings.keep()
        forget_passwords(self.site)
        # What was started by hand and is still there could not start again.
        allow_by_hand(self.site.secrets, allowed=any(map(started_by_hand, self.site.stack.containers())))
        if kept := self.site.backups.serving():
            self.site.backups.roll(kept)
        self.monitoring.start()

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Roll out by `pipeline.targets.common.rolling`."""
        site, started = self.site, self.watch.started
        started.clear()
        kept = site.artifacts.find(new.name)
        rollout = ComposeRollout(
            replicas=site.replicas,
            release=kept.name,
            config=site.variables.wanted(kept.name),
            environment=partial(site.variables.environment, kept),
            deadline=Deadline(site.env.timeout),
            started=started,
        )
        roll(rollout, site.env.replicas, watch, back=back)
        for worker in site.workers.roll(kept, partial(watch, "starting the workers"), rollout.deadline):
            started[worker.ident] = worker

    def withdraw(self) -> None:
        """Stop every replica, except those of a plain `docker compose up`, which go on serving."""
        self.watch.started.clear()
        self.site.workers.stop()
        self._stop([replica for replica in self.site.replicas.all() if slot_of(replica) is not None])

    def down(self, *, volumes: bool) -> None:
        """Drain the replicas, then stop everything; remove networks, with `volumes` data, images and reports, too."""
        site = self.site
        problems = docker_problems(compose=True) or taken_problems(site.stack, site.env.name)
        if problems:
            raise UsageError(*problems)
        site.workers.stop()
        self._stop(site.replicas.all())
        for project in (site.stack.name, throwaway_of(site.stack.name)):
            sweep(site.docker, project)
        site.backups.end(*site.backups.questions())
        options = ["--volumes"] if volumes else []
        site.stack.do("--profile", "*", "down", "--remove-orphans", *options, env=site.variables.environment(None))
        if volumes:
            site.artifacts.forget_images()
            shutil.rmtree(site.home, ignore_errors=True)
        elif site.secrets.exists():
            allow_by_hand(site.secrets, allowed=True)

    def _stop(self, containers: list[Container]) -> None:
        self.site.replicas.begin_stop(containers)
        for container in containers:
            self.site.replicas.stop(container, lambda: None)
