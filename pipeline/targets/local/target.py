"""The local target: the whole service on this machine, from PyPI wheels, under a supervisor."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import Environment, Project
from pipeline.config.secrets import owner_of
from pipeline.config.settings import PLACED, edge_port, ensure_env, read_values, split_secrets
from pipeline.engines.embedded import Engines, find_engines, postgres_user
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact, Running
from pipeline.releases.records import read_json, write_json
from pipeline.system.git import LOCKS
from pipeline.system.ports import describe_process, port_free, port_holder, port_ours_to_open
from pipeline.system.progress import Progress
from pipeline.system.run import run
from pipeline.targets.common.edge import settle
from pipeline.targets.common.here import KeptHere
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.common.rolling import roll
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.local.artifacts import ENGINES_LOCK, Artifacts
from pipeline.targets.local.data import data_majors, judge_data
from pipeline.targets.local.difference import describe as describe_difference
from pipeline.targets.local.edge import Edge, edge_config
from pipeline.targets.local.fleet import LocalFleet
from pipeline.targets.local.layout import make_layout
from pipeline.targets.local.rehearsal import LocalStand, migrate_command
from pipeline.targets.local.replicas import Replicas, Slot, last_words, write_config
from pipeline.targets.local.stores import Stores, role_problems
from pipeline.targets.local.supervision import Supervisor, clean_environment, is_marked, kill_strays, program_config

__all__ = ["LocalTarget"]

FREE_BYTES = 500 * 2**20  # a cluster, its write-ahead log and three virtual environments take about 300 MB
STORES_SECONDS = 60  # for all questions together; each has its own timeout
HEAL_SECONDS = 15  # for replicas that come back after a restart of the machine
UNUSABLE = ";[]*?"  # comments and patterns in the supervisor's files, which cannot quote them


class LocalTarget(KeptHere):
    """`nox -s deploy`: see `pipeline.targets.Target` for what each method promises."""

    def __init__(self, project: Project, env: Environment, progress: Progress) -> None:
        self.project, self.env, self.progress = project, env, progress
        self.layout = make_layout(project.state(env.name))
        self.page = project.root / "docker" / "frontend"
        self.caddyfile = project.root / "docker" / "edge" / "Caddyfile"
        self._read_settings()
        self.artifacts = Artifacts(project, self.layout, progress.say)
        self.supervisor = Supervisor(self.layout)
        self.edge = Edge(self.layout, self.port)
        self.replicas = Replicas(self.layout, self.supervisor, self.edge)
        self._rolled_out: dict[Slot, tuple[int, int]] = {}  # process ID, offset of its first line in the log

    def _read_settings(self) -> None:
        self.values = read_values(self.project.root)
        self.port = edge_port(self.values)
        self.url = self.env.url.replace("{EDGE_PORT}", str(self.port))

    # --- plan ---

    def problems(self) -> list[str]:
        """Check settings, secrets, free disk space, the port, and the user that PostgreSQL runs as."""
        if ensure_env(self.project.root):
            self.progress.say("wrote .env with fresh secrets (mode 0600)")
            self._read_settings()
        problems = settings_problems(self.project.root, self.values, "local runs a {store} of its own")
        if set(str(self.project.root)) & set(UNUSABLE):
            wrong = f"the supervisor's files cannot hold a path with one of {' '.join(UNUSABLE)}"
            return [f"{self.project.root}: {wrong}: clone to another folder"]
        problems += self._room_problems()
        problems += role_problems(*self._credentials()[::2]) or self._owner_problems()
        if not any("EDGE_PORT: " in problem for problem in problems):
            problems += self._port_problems()
        postgres_user()
        return problems

    def _room_problems(self) -> list[str]:
        folders = (self.layout.home, self.layout.postgres)  # as root, the data is elsewhere, perhaps on another disk
        places = dict.fromkeys(next(path for path in (folder, *folder.parents) if path.exists()) for folder in folders)
        free = {place: shutil.disk_usage(place).free for place in places}
        return [
            f"{place}: {count // 2**20} MB are free, a deploy needs {FREE_BYTES // 2**20} MB: make room"
            for place, count in free.items()
            if count < FREE_BYTES
        ]

    def _owner_problems(self) -> list[str]:
        # Another role does not own the tables of the database: neither the new release nor the old one would get ready.
        user, _, database = self._credentials()
        known = [read_json(self.layout.configs / slot.config / "env.json") for slot in self.replicas.slots()]
        owners = {env.get("POSTGRES_USER", user) for env in known if env.get("POSTGRES_DB") == database}
        return [
            f".env: POSTGRES_USER: the database {database} belongs to the role {owner}: set it back to that"
            for owner in sorted(owners - {user})
        ]

    def _port_problems(self) -> list[str]:
        if not port_ours_to_open(self.port):
            return [f"EDGE_PORT: this user may not listen on port {self.port}: set EDGE_PORT to 1024 or above in .env"]
        ours = self.edge.configured_port() == self.port and "edge" in self.supervisor.processes()
        holder = port_holder(self.port)
        ours = ours or (holder is not None and is_marked(holder, self.layout.home))
        if ours or port_free(self.port):
            return []
        who = describe_process(holder)
        return [f"EDGE_PORT: port {self.port} is taken by {who}: stop that, or set another EDGE_PORT in .env"]

    def data_problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Check PostgreSQL's folder against the engine that runs on it, or would."""
        del release  # the data stores are not part of a release
        found, server = data_majors(self.layout.postgres, self._engines_venv(), self.project.root / ENGINES_LOCK)
        return judge_data(self.env.name, self.layout.postgres, found, server, expected=expected)

    def heal(self) -> bool:
        """End the strays of a killed deploy, and restart what the supervisor should keep running."""
        self.layout.make()
        strays = kill_strays(self.layout.home, self.supervisor.pid())
        if strays:
            self.progress.warn(f"ended what a killed deploy had left: {', '.join(strays)}")
        for part in [*self.layout.artifacts.glob(".part-*"), *self.layout.venvs.glob(".part-*")]:
            shutil.rmtree(part, ignore_errors=True)
        if self.supervisor.names() and self.supervisor.pid() is None:
            self.progress.warn("nothing runs although it should (was the machine restarted?): starting it again")
            self.prepare()
            for slot in self.replicas.slots():  # a restart may empty the folder of the sockets
                self.edge.link(slot.slot, self.replicas.socket(slot.slot))
            self.replicas.wait_settled(HEAL_SECONDS)
            return True
        return False

    # --- build and check ---

    def build(self) -> Artifact:
        """Build the release as a folder named by its content."""
        self.layout.make()
        plain, _ = split_secrets(self.values)
        return self.artifacts.build({name: value for name, value in plain.items() if name not in PLACED})

    def recorded(self, name: str) -> Artifact:
        """Return the release of a kept folder, with its virtual environments prepared."""
        artifact = self.artifacts.recorded(name)
        self.artifacts.prepare_venvs([self.artifacts.folder(name) / lock for lock in LOCKS.values()])
        return artifact

    def adopt(self, reference: str | None) -> str | None:
        """Return None, because a release that another machine built cannot be fetched."""
        del reference
        return None

    def running(self) -> Running:
        """Return the replicas, and what is wrong with the edge and the data stores around them."""
        processes = self.supervisor.processes()
        problems = [
            f"{name} is {processes[name].state if name in processes else 'missing'}"
            for name in ("postgres", "valkey", "edge")
            if name not in processes or processes[name].state not in ("RUNNING", "STARTING")
        ]
        problems += [
            f"the edge does not route to {slot.program}"
            for slot in self.replicas.slots()
            if not self.edge.linked(slot.slot, self.replicas.socket(slot.slot))
        ]
        if self.edge.configured_port() not in (None, self.port):
            problems.append(f"the edge listens on port {self.edge.configured_port()} instead of {self.port}")
        if not self.edge.shows(self.page):
            problems.append("the edge does not serve the page of this working tree")
        if not self.edge.follows(self.caddyfile):
            problems.append("the edge does not follow docker/edge/Caddyfile of this working tree")
        return Running(
            replicas=self.replicas.seen(self._wanted_config), wanted=self.env.replicas, problems=tuple(problems)
        )

    def pushed(self, new: Artifact) -> None:
        """Return None, because a local release has no images."""

    def objections(self, new: Artifact) -> list[str]:
        """Return what Caddy has against docker/edge/Caddyfile; building the release has found what that lacks."""
        del new
        try:
            edge_config(self._engines().caddy, self.caddyfile, self.layout, 1, self.port)
        except SlipwayError as error:
            return list(error.problems)
        return []

    def findings(self) -> list[str]:
        """Report a nearly full disk, which PostgreSQL fills; `running` reports the rest."""
        return self._room_problems()

    def stores(self, release: str) -> Mapping[str, Any]:
        """Ask PostgreSQL and Valkey with the release's own Python and a replica's environment."""
        if not self.artifacts.folder(release).exists():
            return {}
        done = subprocess.run(
            [self.artifacts.python(release, "backend"), *probe_command("database", "redis")],
            env={**self._base_environment(), **self._database(), "REDIS_HOST": str(self.layout.run / "valkey.sock")},
            cwd=self.artifacts.folder(release),
            capture_output=True,
            text=True,
            check=False,
            timeout=STORES_SECONDS,
        )
        return read_stores(done.stdout or done.stderr)

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe the files, packages and settings that differ."""
        return describe_difference(self.artifacts, new.name, old.name)

    def database_runs(self, new: Artifact) -> bool:
        """Return whether PostgreSQL is among the processes."""
        del new  # each release uses the same one
        return bool(self.supervisor.processes().get("postgres"))

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations as the service's role, in the release's own folder."""
        return run(
            migrate_command(self.artifacts, release, *arguments),
            say=self.progress.say,
            env={**self._base_environment(), **(self._database() if database else {})},
            cwd=self.artifacts.folder(release.name),
            timeout=600,
        )

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse on a throwaway PostgreSQL and Valkey of the same engines."""
        stand = LocalStand(self.artifacts, self._engines(), self._base_environment(), self.progress.say)
        rehearse(stand, new, old, self.token())

    # --- migrate and roll out ---

    def prepare(self, new: Artifact | None = None) -> None:
        """Start PostgreSQL, Valkey and the edge; create the role and the database."""
        del new  # none of this depends on the release
        self.layout.make()
        shutil.copyfile(Path(__file__).with_name("launch.py"), self.layout.home / "launch.py")
        self.edge.place(self.page)
        engines = self._engines()
        used = max((slot.slot for slot in self.replicas.slots()), default=0)
        # One spare slot, and every slot that serves now.
        changed = self.edge.write_config(engines.caddy, self.caddyfile, max(self.env.replicas, used) + 1)
        self.supervisor.start(engines.supervisord)
        stores = Stores(self.layout, self.supervisor, engines)
        workers = int(self.values.get("BACKEND_WORKERS", "1"))
        pool = int(self.values.get("DATABASE_POOL_SIZE", "5")) + int(self.values.get("DATABASE_MAX_OVERFLOW", "5"))
        stores.ensure(connections=(self.env.replicas + 1) * workers * pool)
        user, password, database = self._credentials()
        stores.ensure_role(user, password, database)
        edge = self.supervisor.processes().get("edge")
        if edge is None:
            command = [str(engines.caddy), "run", "--config", str(self.edge.file)]
            self.supervisor.add(
                "edge", program_config("edge", command, directory=self.layout.home, stop_seconds=15, priority=90)
            )
        elif edge.state not in ("RUNNING", "STARTING"):
            self.supervisor.restart("edge")
            settle(time.monotonic())
        elif changed:
            self.edge.reload()
        self.edge.wait_up()

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Roll out by `pipeline.targets.common.rolling`."""
        self._rolled_out.clear()
        seen = self.replicas.seen(self._wanted_config)
        fleet = LocalFleet(
            replicas=self.replicas,
            release=new.name,
            config=self._config(new.name),
            python=self.artifacts.python(new.name, "backend"),
            folder=self.artifacts.folder(new.name),
            serving=frozenset(replica.name for replica in seen if replica.ready),
            deadline=time.monotonic() + self.env.timeout,
            started=self._rolled_out,
        )
        roll(fleet, self.env.replicas, watch, back=back)

    def trouble(self) -> str | None:
        """Report a replica whose process is no longer the one that got ready."""
        processes = self.supervisor.processes() if self._rolled_out else {}
        for slot, (pid, offset) in self._rolled_out.items():
            if slot.program not in processes or processes[slot.program].pid != pid:
                words = last_words(self.layout.log(slot.program), offset)
                return f"release {slot.release} ended after it was ready: {words}"
        return None

    def withdraw(self) -> None:
        """Stop every replica."""
        self._rolled_out.clear()
        for slot in self.replicas.slots():
            self.replicas.stop(slot, lambda: None)

    # --- the rest ---

    def token(self) -> str | None:
        """Return `SERVICE_TOKEN`."""
        return split_secrets(self.values)[1].get("SERVICE_TOKEN")

    def token_changes(self) -> bool:
        """Compare the token with those of the replicas, which are kept beside their settings."""
        known = [self.layout.configs / slot.config / "SERVICE_TOKEN" for slot in self.replicas.slots()]
        return any(path.read_text(encoding="utf-8") != self.token() for path in known if path.exists())

    def prune(self, retained: list[str]) -> None:
        """Remove release folders, virtual environments and configurations that nothing refers to."""
        slots = self.replicas.slots()
        self.artifacts.prune({*retained, *(slot.release for slot in slots)}, self._engines_venv())
        for folder in self.layout.configs.iterdir():
            if folder.name not in {slot.config for slot in slots}:
                shutil.rmtree(folder)

    def down(self, *, volumes: bool) -> None:
        """Drain the replicas, then stop the edge and the stores."""
        self.supervisor.shutdown(seconds=90)
        kill_strays(self.layout.home, None)
        for path in [
            *self.layout.programs.glob("*"),
            *self.layout.run.glob("*"),
            self.layout.home / "engines.json",
            self.layout.home / "supervisord.conf",
            self.edge.file,
        ]:
            path.unlink(missing_ok=True)
        if volumes:
            Stores(self.layout, self.supervisor, Engines(Path(), Path(), Path(), Path())).remove()
            shutil.rmtree(self.layout.home, ignore_errors=True)
            if not self.layout.run.is_relative_to(self.layout.home):
                shutil.rmtree(self.layout.run, ignore_errors=True)

    def _engines(self) -> Engines:
        return find_engines(self._engines_venv(make=True))

    def _engines_venv(self, *, make: bool = False) -> Path:
        """Return the virtual environment of the engines; with `make`, create it where it is missing.

        Running engines keep theirs until `down`, whatever the lock says by now.
        """
        pin = self.layout.home / "engines.json"
        pinned = read_json(pin).get("venv")
        if pinned and Path(pinned).is_dir():
            return Path(pinned)
        if not make:
            return Path(pinned or "/nonexistent")
        venv = self.artifacts.prepare_venvs([self.project.root / ENGINES_LOCK])[0]
        write_json(pin, {"venv": str(venv)})
        return venv

    def _credentials(self) -> tuple[str, str | None, str]:
        """Return the service's role, its password and its database."""
        plain, secrets = split_secrets(self.values)
        return (
            owner_of(
                plain.get("POSTGRES_USER", self.project.name)
            ),  # PostgreSQL asks for no password here: nothing to rotate
            secrets.get("POSTGRES_PASSWORD"),
            plain.get("POSTGRES_DB", self.project.name),
        )

    def _database(self) -> dict[str, str]:
        user, password, database = self._credentials()
        place = {"POSTGRES_HOST": str(self.layout.postgres_sockets), "POSTGRES_PORT": "5432"}
        own = {"POSTGRES_PASSWORD": password} if password else {}
        return {**place, "POSTGRES_USER": user, "POSTGRES_DB": database, **own}

    def _base_environment(self) -> dict[str, str]:
        """Return the environment for commands of a release: the secrets that its settings need, but no database."""
        _, secrets = split_secrets(self.values)
        return {
            **clean_environment(self.layout.home),
            **{name: value for name, value in secrets.items() if name not in PLACED},
        }

    def _config(self, release: str) -> Path:
        _, secrets = split_secrets(self.values)
        database = {name: value for name, value in self._database().items() if name != "POSTGRES_PASSWORD"}
        environment = {
            **clean_environment(self.layout.home),
            **self.artifacts.config(release),
            **database,
            "REDIS_HOST": str(self.layout.run / "valkey.sock"),
            "RELEASE": release,
            # The edge is on this machine and connects over a Unix socket, which has no address to trust.
            "TRUSTED_PROXIES": "*",
        }
        return write_config(
            self.layout.configs, environment, {name: value for name, value in secrets.items() if name not in PLACED}
        )

    def _wanted_config(self, release: str) -> str | None:
        return self._config(release).name if self.artifacts.folder(release).exists() else None
