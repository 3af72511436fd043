"""The replicas of a local environment, with PostgreSQL, Valkey and the edge: processes under a supervisor."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.settings import split_secrets
from pipeline.engines.embedded import Engines
from pipeline.errors import SlipwayError
from pipeline.proof.smoke import Smoked, smoke
from pipeline.releases.model import Artifact, Running
from pipeline.releases.records import read_json
from pipeline.system.streams import Stream
from pipeline.system.waiting import Deadline
from pipeline.targets.common import roles
from pipeline.targets.common.delivery import missing_secrets
from pipeline.targets.common.diagnosis import FOLLOWED_LINES
from pipeline.targets.common.edge import settle
from pipeline.targets.common.here import max_connections
from pipeline.targets.common.rights import PSQL, bring_env_over
from pipeline.targets.common.rolling import roll
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.local.beside import SOCKETS, beside
from pipeline.targets.local.database import run_program
from pipeline.targets.local.moving import ENGINES, settle_here
from pipeline.targets.local.replicas import Slot, last_log_line, read_tokens
from pipeline.targets.local.rollout import LocalRollout
from pipeline.targets.local.site import Site
from pipeline.targets.local.stores import SUPERUSER, Stores, remove_data
from pipeline.targets.local.supervision import kill_strays, program_config

__all__ = ["LocalFleet", "LocalWatch"]

log = logging.getLogger(__name__)

STORES_SECONDS = 60  # for all questions together; each has its own timeout
HEAL_SECONDS = 15  # for replicas that come back after a restart of the machine
WATCHDOG = "watchdog.py"
UP = ("RUNNING", "STARTING")


class LocalWatch(roles.Watch):
    """See `pipeline.targets.common.roles.Watch`. Only a deploy changes the number of replicas here."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.started: dict[Slot, tuple[int, int]] = {}  # process ID, offset of its first line in the log

    def trouble(self) -> str | None:
        """Report a replica whose process is no longer the one that got ready."""
        processes = self.site.supervisor.processes() if self.started else {}
        for slot, (pid, offset) in self.started.items():
            if slot.program not in processes or processes[slot.program].pid != pid:
                words = last_log_line(self.site.layout.log(slot.program), offset)
                return f"release {slot.release} ended after it was ready: {words}"
        return None


class LocalFleet(roles.Fleet):
    """See `pipeline.targets.common.roles.Fleet`. `watch` is told which processes a rollout started."""

    def __init__(self, site: Site, watch: LocalWatch) -> None:
        self.site, self.watch = site, watch

    def running(self) -> Running:
        """Return the replicas, and what is wrong with the edge and the data stores around them."""
        site, processes = self.site, self.site.supervisor.processes()
        problems = [
            f"{name} is {processes[name].state if name in processes else 'missing'}"
            for name in (*site.own_stores, "edge")
            if name not in processes or processes[name].state not in UP
        ]
        problems += [
            f"the edge does not route to {slot.program}"
            for slot in site.replicas.slots()
            if not site.edge.linked(slot.slot, site.replicas.socket(slot.slot))
        ]
        if site.edge.configured_port() not in (None, site.port):
            problems.append(f"the edge listens on port {site.edge.configured_port()} instead of {site.port}")
        if not site.edge.shows(site.page):
            problems.append("the edge does not serve the page of this working tree")
        if not site.edge.follows(site.caddyfile):
            problems.append("the edge does not follow docker/edge/Caddyfile of this working tree")
        replicas = site.replicas.seen(site.wanted_config)
        return Running(replicas=replicas, wanted=site.env.replicas, problems=tuple(problems))

    def findings(self) -> list[str]:
        """Report a nearly full disk, which PostgreSQL fills, and Pythons that are gone; `running` reports the rest."""
        lost = "its Python was removed or upgraded, and what runs with it could not start again"
        command = f"`nox -s deploy -- {self.site.env.name}` makes it anew"
        return [*self.site.room_problems(), *(f"{venv}: {lost}: {command}" for venv in self.site.broken_pythons())]

    def stores(self, release: str) -> Mapping[str, Any]:
        """Ask PostgreSQL and Valkey with the release's own Python and a replica's environment."""
        site = self.site
        if not site.artifacts.folder(release).exists() or not site.artifacts.python(release, "backend").exists():
            return {}
        done = subprocess.run(
            [site.artifacts.python(release, "backend"), *probe_command("database", "redis")],
            env={**site.base_environment(), **site.database_environment(), **site.redis_environment()},
            cwd=site.artifacts.folder(release),
            capture_output=True,
            text=True,
            check=False,
            timeout=STORES_SECONDS,
        )
        return read_stores(done.stdout or done.stderr)

    def logs(self, *, follow: bool) -> list[Stream]:
        """Read the files that the supervisor writes: the newest one, and the two before it."""
        streams = []
        for slot in self.site.replicas.slots():
            log = self.site.layout.log(slot.program)
            older = [path for number in (2, 1) if (path := log.with_name(f"{log.name}.{number}")).exists()]
            command = ["tail", f"--lines={FOLLOWED_LINES}", "-F"] if follow else ["cat", *map(str, older)]
            streams.append(Stream(slot.program, (*command, str(log))))
        return streams

    def token(self) -> str | None:
        """Return a token that the replicas accept, if there is one."""
        return self._shared_token()[0]

    def token_changes(self) -> bool:
        """Return whether there is none."""
        return not self._shared_token()[1]

    def _shared_token(self) -> tuple[str | None, bool]:
        """Compare the tokens with those of the replicas, which are kept beside their settings."""
        folders = [self.site.layout.configs / slot.config for slot in self.site.replicas.slots()]
        return self.site.tokens.shared(read_tokens(folder).mark for folder in folders if folder.exists())

    def undelivered(self, secrets: Sequence[str], release: str | None) -> list[str]:
        """List what `.env` lacks: a replica gets whatever secret that has."""
        return missing_secrets(secrets, split_secrets(self.site.values)[1], release, self.site.env.secrets)

    def heal(self) -> bool:
        """End the strays of a killed deploy, and restart what the supervisor should keep running."""
        site = self.site
        site.layout.make()
        settle_here(site.layout)
        strays = kill_strays(site.layout.home, site.supervisor.pid())
        if strays:
            log.warning(f"ended what a killed deploy had left: {', '.join(strays)}")
        for part in [*site.layout.artifacts.glob(".part-*"), *site.layout.venvs.glob(".part-*")]:
            shutil.rmtree(part, ignore_errors=True)
        for socket in site.layout.run.glob(SOCKETS):
            socket.unlink()
        broken = bool(site.broken_pythons())
        for release in {slot.release for slot in site.replicas.slots()}:
            if site.artifacts.config(release):
                site.artifacts.prepare(release)
        if not site.supervisor.names() or site.supervisor.pid() is not None:
            return broken
        log.warning("nothing runs although it should (was the machine restarted?): starting it again")
        for name in site.own_stores:  # in an environment that was made anew, their programs may be elsewhere
            site.supervisor.forget(name)
        self._start()
        for slot in site.replicas.slots():  # a restart may empty the folder of the sockets
            site.edge.link(slot.slot, site.replicas.socket(slot.slot))
        site.replicas.wait_settled(HEAL_SECONDS)
        return True

    def objections(self, new: Artifact) -> list[str]:
        """Let Caddy judge the edge's configuration; the data stores have none of the project's."""
        site = self.site
        try:
            site.edge.config(site.engines().caddy, site.caddyfile)
        except SlipwayError as error:
            return list(error.problems)
        return []

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
        """Start a process with the configuration of a replica."""
        site = self.site
        environment = site.beside(new.name, database) if database else read_json(site.config(new.name) / "env.json")
        deadline, starting = Deadline(site.env.timeout), partial(watch, "starting it")
        with (
            log.open("w+b") as output,
            beside(site.artifacts, new.name, environment, log=output, deadline=deadline, watch=starting) as address,
        ):
            watch("asking it")
            return smoke(new.requests, address, site.tokens.current, journal=journal, tries=tries)

    def prepare(self, new: Artifact) -> None:
        """Start PostgreSQL, Valkey and the edge, none of which is part of a release; see to the database's roles."""
        self._start()
        site = self.site
        if not site.managed.database:
            psql = partial(run_program, site, SUPERUSER, *PSQL)
            if bring_env_over(site.project.root, site.database, site.logins, lambda sql: psql(given=sql)):
                site.read_settings()

    def keep(self) -> None:
        """Stop the stores that others manage now: until here, a replica may have used them. Their data stays."""
        for name in {"postgres", "valkey"} - {*self.site.own_stores}:
            if name in self.site.supervisor.processes():
                log.info(f"{name} is stopped, as it is managed elsewhere now; what it has is kept")
                self.site.supervisor.stop(name, lambda: None)

    def _start(self) -> None:
        """Start those of PostgreSQL and Valkey that run here, and the edge; create the role and the database."""
        site = self.site
        site.layout.make()
        for script in ("launch.py", WATCHDOG):
            shutil.copyfile(Path(__file__).with_name(script), site.layout.home / script)
        site.edge.place(site.page)
        engines = site.engines()
        used = max((slot.slot for slot in site.replicas.slots()), default=0)
        # One spare slot, and every slot that serves now.
        changed = site.edge.write_config(engines.caddy, site.caddyfile, max(site.env.replicas, used) + 1)
        site.supervisor.start(engines.supervisord)
        stores = Stores(site.layout, site.supervisor, engines)
        stores.ensure(site.own_stores, max_connections(site.env.replicas, site.values))
        if not site.managed.database:
            stores.ensure_role(site.logins.owner, site.logins.owner_password, site.database)
        _start_watchdog(site, engines)
        _start_edge(site, engines, changed=changed)

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Roll out by `pipeline.targets.common.rolling`."""
        site, started = self.site, self.watch.started
        started.clear()
        serving = frozenset(replica.name for replica in site.replicas.seen(site.wanted_config) if replica.ready)
        rollout = LocalRollout(
            replicas=site.replicas,
            release=new.name,
            config=site.config(new.name),
            python=site.artifacts.python(new.name, "backend"),
            folder=site.artifacts.folder(new.name),
            serving=serving,
            deadline=Deadline(site.env.timeout),
            started=started,
        )
        roll(rollout, site.env.replicas, watch, back=back)

    def withdraw(self) -> None:
        """Stop every replica."""
        self.watch.started.clear()
        for slot in self.site.replicas.slots():
            self.site.replicas.stop(slot, lambda: None)

    def down(self, *, volumes: bool) -> None:
        """Drain the replicas, then stop the edge and the stores."""
        layout, supervisor = self.site.layout, self.site.supervisor
        settle_here(layout)
        supervisor.shutdown()
        kill_strays(layout.home, None)
        for path in [
            *layout.programs.glob("*"),
            *layout.run.glob("*"),
            layout.home / ENGINES,
            layout.home / "engines.txt",
            layout.home / "supervisord.conf",
            self.site.edge.file,
        ]:
            path.unlink(missing_ok=True)
        if volumes:
            remove_data(layout)
            _empty(layout.home, layout.backups)
            if not layout.run.is_relative_to(layout.home):
                shutil.rmtree(layout.run, ignore_errors=True)


def _empty(home: Path, kept: Path) -> None:
    """Remove the folder `home`, but not the folder `kept` in it, if it is there."""
    if not kept.exists():
        shutil.rmtree(home, ignore_errors=True)
        return
    for path in home.iterdir():
        if path.is_dir() and path != kept:
            shutil.rmtree(path, ignore_errors=True)
        elif path != kept:
            path.unlink()
    log.info(f"the backups are still in {os.path.relpath(kept)}: whoever wants them gone removes that folder")


def _start_watchdog(site: Site, engines: Engines) -> None:
    """Start what ends replicas that hang."""
    python = engines.supervisord.with_name("python")
    command = [str(python), "-I", "-S", str(site.layout.home / WATCHDOG), str(site.layout.run)]
    if "watchdog" not in site.supervisor.processes():
        config = program_config("watchdog", command, directory=site.layout.home, stop_seconds=1, priority=80)
        site.supervisor.add("watchdog", config)


def _start_edge(site: Site, engines: Engines, *, changed: bool) -> None:
    """Start the edge, or bring it up to its configuration, which has `changed` or not; wait until it answers."""
    process = site.supervisor.processes().get("edge")
    if process is None:
        command = [str(engines.caddy), "run", "--config", str(site.edge.file)]
        site.supervisor.add(
            "edge", program_config("edge", command, directory=site.layout.home, stop_seconds=15, priority=90)
        )
    elif process.state not in UP:
        site.supervisor.restart("edge")
        settle(time.monotonic())
    elif changed:
        site.edge.reload()
    site.edge.wait_up()
