"""The site of a compose environment: its settings, its Compose project, and what runs there."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.managed import managed_stores
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.config.secrets import PROVED, secret_files, write_secret_files
from pipeline.engines.docker import Docker
from pipeline.images.build import Images
from pipeline.system.ports import LOOPBACK
from pipeline.targets.common.here import SiteHere
from pipeline.targets.compose.artifacts import Artifacts
from pipeline.targets.compose.replicas import Replicas
from pipeline.targets.compose.stack import Stack
from pipeline.targets.compose.surroundings import Surroundings
from pipeline.targets.compose.variables import Variables
from pipeline.targets.compose.workers import Workers

__all__ = ["Site"]


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

    def write_secrets(self) -> None:
        """Write the secrets of `.env` to their files."""
        write_secret_files(self.secrets, self.variables.secrets)
