"""The site of a local environment: its folders, its settings, and what runs there."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.config.logins import Logins, logins_of
from pipeline.config.managed import NO_REDIS, Managed, managed_stores
from pipeline.config.project import LocalEnvironment, Project
from pipeline.config.settings import PLACED, URLS, split_secrets
from pipeline.engines.embedded import Engines, find_engines
from pipeline.releases.records import read_json, write_json
from pipeline.targets.common.edge import trusted_ranges
from pipeline.targets.common.here import SiteHere
from pipeline.targets.common.tokens import Tokens
from pipeline.targets.local.artifacts import ENGINES_LOCK, Artifacts, python_works
from pipeline.targets.local.edge import Edge
from pipeline.targets.local.layout import make_layout
from pipeline.targets.local.moving import ENGINES, usual_home
from pipeline.targets.local.replicas import Replicas, write_config
from pipeline.targets.local.supervision import Supervisor, clean_environment

__all__ = ["Site"]

FREE_BYTES = 500 * 2**20  # a cluster, its write-ahead log and three virtual environments take about 300 MB


class Site(SiteHere):
    """What the roles of the local target share."""

    env: LocalEnvironment

    def __init__(self, project: Project, env: LocalEnvironment) -> None:
        self.project, self.env = project, env
        self.layout = make_layout(usual_home(project.state(env.name)))
        self.page = project.root / "docker" / "frontend"
        self.caddyfile = project.root / "docker" / "edge" / "Caddyfile"
        self.read_settings()
        self.artifacts = Artifacts(project, self.layout)
        self.supervisor = Supervisor(self.layout)
        self.edge = Edge(self.layout, self.port, trusted_ranges(self.values))
        self.replicas = Replicas(self.layout, self.supervisor, self.edge)

    def room_problems(self) -> list[str]:
        """Return a line for each disk that is nearly full."""
        # As root, the data is elsewhere, perhaps on another disk.
        folders = (self.layout.home, self.layout.postgres)
        places = dict.fromkeys(next(path for path in (folder, *folder.parents) if path.exists()) for folder in folders)
        free = {place: shutil.disk_usage(place).free for place in places}
        return [
            f"{place}: {count // 2**20} MB are free, a deploy needs {FREE_BYTES // 2**20} MB: make room"
            for place, count in free.items()
            if count < FREE_BYTES
        ]

    def engines(self, *, keep: bool = True) -> Engines:
        """Return the programs of PostgreSQL, Valkey, the edge and the supervisor; install them if necessary.

        With `keep`, they stay these until `down`, whatever the lock says by then.
        """
        venv, lock = self.engines_venv(), self.project.root / ENGINES_LOCK
        if not venv.is_dir():
            venv = self.artifacts.prepare_venvs([lock])[0]
            if keep:
                shutil.copyfile(lock, self._kept_lock)
                write_json(self._kept_engines, {"venv": str(venv)})
        else:
            self.artifacts.remake_venv(venv, self._kept_lock if self._kept_lock.exists() else lock)
        return find_engines(venv)

    def engines_venv(self) -> Path:
        """Return the virtual environment of the engines that are kept; no folder where none are."""
        # By its name: its folder is here, wherever this project was when they were started.
        venv = read_json(self._kept_engines).get("venv")
        return self.layout.venvs / Path(venv).name if venv else Path("/nonexistent")

    @property
    def _kept_engines(self) -> Path:
        return self.layout.home / ENGINES

    @property
    def _kept_lock(self) -> Path:
        return self.layout.home / "engines.txt"

    def broken_pythons(self) -> list[Path]:
        """Return the virtual environments of what serves whose Python was removed, or upgraded in its place."""
        serving = {slot.release for slot in self.replicas.slots()}
        needed = {self.artifacts.python(name, "backend").parents[1] for name in serving if self.artifacts.config(name)}
        return sorted(venv for venv in {*needed, self.engines_venv()} if venv.is_dir() and not python_works(venv))

    @property
    def tokens(self) -> Tokens:
        """The tokens that a replica started now would accept."""
        return Tokens.of(split_secrets(self.values)[1])

    @property
    def managed(self) -> Managed:
        """The stores that others manage."""
        return managed_stores(self.values)

    @property
    def own_stores(self) -> list[str]:
        """The programs of the stores that run here."""
        managed = self.managed
        return [*([] if managed.database else ["postgres"]), *([] if managed.redis else ["valkey"])]

    @property
    def logins(self) -> Logins:
        """Who logs in to the database. PostgreSQL asks for no password here: there is nothing to rotate."""
        return logins_of(self.values, self.project.name)

    @property
    def database(self) -> str:
        """The name of the database."""
        return split_secrets(self.values)[0].get("POSTGRES_DB", self.project.name)

    def database_environment(self, *, owner: bool = False) -> dict[str, str]:
        """Return the variables that lead the service, or with `owner` who migrates, to the database."""
        if self.managed.database:
            return self.managed.of_migrations() if owner else self.managed.of_service("DATABASE_URL")
        logins = self.logins
        user, password = (logins.owner, logins.owner_password) if owner else (logins.user, logins.password)
        place = {"POSTGRES_HOST": str(self.layout.postgres_sockets), "POSTGRES_PORT": "5432"}
        own = {"POSTGRES_PASSWORD": password} if password else {}
        return {**place, "POSTGRES_USER": user, "POSTGRES_DB": self.database, **own}

    def redis_environment(self) -> dict[str, str]:
        """Return the variables that lead the service to its Redis."""
        return self.managed.of_service("REDIS_URL") or {"REDIS_HOST": str(self.layout.run / "valkey.sock")}

    def base_environment(self) -> dict[str, str]:
        """Return the environment for commands of a release: the secrets that its settings need, but no database."""
        return {**clean_environment(self.layout.home), **self._secrets()}

    def config(self, release: str) -> Path:
        """Write what a replica of `release` starts with, and return the folder of that."""
        urls = self.managed.of_service()
        stores = {**self.database_environment(), **self.redis_environment()}
        environment = {
            **clean_environment(self.layout.home),
            **self.artifacts.config(release),
            **{name: value for name, value in stores.items() if name not in ("POSTGRES_PASSWORD", *urls)},
            "RELEASE": release,
            "EDGE_PORT": str(self.port),
        }
        return write_config(self.layout.configs, environment, {**self._secrets(), **urls})

    def beside(self, release: str, database: str) -> dict[str, str]:
        """Return the environment of a replica of `release` on another `database` of the same server, without Redis."""
        environment = read_json(self.config(release) / "env.json")
        kept = {name: value for name, value in environment.items() if name.removesuffix("_FILE") not in URLS}
        place = self.managed.beside(database) or {"POSTGRES_DB": database}
        return {**kept, **place, "REDIS_URL": NO_REDIS}

    def wanted_config(self, release: str) -> str | None:
        """Return the name of what a replica of `release` would start with now; None where the release is not kept."""
        return self.config(release).name if self.artifacts.folder(release).exists() else None

    def _secrets(self) -> dict[str, str]:
        return {name: value for name, value in split_secrets(self.values)[1].items() if name not in PLACED}
