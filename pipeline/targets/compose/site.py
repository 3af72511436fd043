"""The site of a compose environment: its settings, its Compose project, and what runs there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from pipeline.config.managed import managed_stores
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.config.secrets import PROVED, secret_files, write_secret_files
from pipeline.engines.docker import Docker
from pipeline.images.build import Images
from pipeline.system.files import write_whole
from pipeline.system.ports import LOOPBACK
from pipeline.targets.common.here import SiteHere
from pipeline.targets.compose.artifacts import Artifacts
from pipeline.targets.compose.replicas import Replicas
from pipeline.targets.compose.scheduled import Scheduled
from pipeline.targets.compose.stack import Stack
from pipeline.targets.compose.surroundings import Surroundings
from pipeline.targets.compose.variables import Variables
from pipeline.targets.compose.workers import Workers

__all__ = ["Site"]

LENT = "lent"  # begins the names of files that are for one container


class Site(SiteHere):
    """What the roles of the compose target share."""

    env: ComposeEnvironment

    def __init__(self, project: Project, env: ComposeEnvironment) -> None:
        self.project, self.env = project, env
        self.home = project.state(env.name)
        self.docker = Docker(project.root)
        self.read_settings()

    def read_settings(self) -> None:
        """Read `.env` again."""
        super().read_settings()
        name, https = self.values.get("PROJECT_NAME", self.project.name), "EDGE_DOMAIN" in self.values
        managed = managed_stores(self.values)
        elsewhere = tuple(one for one, of in (("postgres", managed.database), ("redis", managed.redis)) if of)
        self.stack = Stack(self.project.root, name, self.docker, https, elsewhere)
        self.replicas = Replicas(self.stack, f"http://{self.host}:{self.port}")
        self.artifacts = Artifacts(self.project, self.home / "artifacts", self.docker, self.stack.name)
        self.variables = Variables(self.project, self.env, self.values, self.stack, self.artifacts)
        self.workers = Workers(self.variables)
        self.backups = Scheduled(self.variables, self.replicas)
        self.surroundings = Surroundings(self.variables, self.home / PROVED)

    @property
    def address(self) -> str:
        """`EDGE_ADDRESS`."""
        return self.values.get("EDGE_ADDRESS") or LOOPBACK

    @property
    def images(self) -> Images:
        """The images that are built here."""
        return Images(self.project.root, self.stack.name)

    @property
    def secrets(self) -> Path:
        """The folder of the secret files that docker-compose.yml names."""
        return secret_files(self.project.root)

    @contextmanager
    def lend(self, secret: str) -> Iterator[Path]:
        """Yield a file of a `secret` that one container gets and no other; it is gone after the block."""
        file = self.secrets / f"{LENT}-{token_hex(4)}"
        write_whole(file, secret)
        file.chmod(0o444)  # the container's user is not ours; nobody else enters the folder
        try:
            yield file
        finally:
            file.unlink(missing_ok=True)

    def forget_lent(self) -> None:
        """Remove the files of `lend` that a kill has left; what has one open keeps it."""
        for file in self.secrets.glob(f"{LENT}-*"):
            file.unlink(missing_ok=True)

    def write_secrets(self) -> None:
        """Write the secrets of `.env` to their files."""
        write_secret_files(self.secrets, {**self.variables.secrets, **self.variables.backups})
