"""The places where the local target keeps its files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.embedded import ROOT_HOME, postgres_user
from pipeline.errors import SlipwayError

__all__ = ["Layout", "make_layout"]

SOCKET_PATH_BYTES = 100  # sun_path holds 107 bytes on Linux and 103 on macOS, the closing zero aside
LONGEST_SOCKET = len("/replica-99.sock")


@dataclass(frozen=True)
class Layout:
    """The folders of one local environment. `postgres` and `postgres_sockets` belong to PostgreSQL's user."""

    home: Path
    run: Path
    postgres: Path
    postgres_sockets: Path

    @property
    def artifacts(self) -> Path:
        """Release folders, named by content."""
        return self.home / "artifacts"

    @property
    def venvs(self) -> Path:
        """Virtual environments, named by their locks."""
        return self.home / "venvs"

    @property
    def programs(self) -> Path:
        """The supervisor's file for each program."""
        return self.home / "programs"

    @property
    def configs(self) -> Path:
        """The environment and the secrets that replicas start with, named by content."""
        return self.home / "configs"

    @property
    def page(self) -> Path:
        """The files that the edge serves itself."""
        return self.home / "page"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only file."""
        return self.home / "valkey"

    @property
    def backups(self) -> Path:
        """The backups, which stay when everything else is removed."""
        return self.home / "backups"

    def log(self, program: str) -> Path:
        """Return the path of the log of a supervised `program`."""
        return self.home / "logs" / f"{program}.log"

    def make(self) -> None:
        """Create the folders, accessible only to this user; PostgreSQL's are created with its cluster.

        Raise `SlipwayError` where the folder of the sockets belongs to another user.
        """
        for folder in (
            self.home,
            self.run,
            self.artifacts,
            self.venvs,
            self.programs,
            self.configs,
            self.page,
            self.valkey,
            self.home / "logs",
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.run.stat().st_uid != os.geteuid():
            raise SlipwayError(f"{self.run} belongs to another user: remove it, or clone to a shorter path")


def make_layout(home: Path) -> Layout:
    """Return the layout below `home` (`.slipway/ENV`); sockets go to a short path where `home` is too deep for them."""
    tag = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    run = home / "run"
    if len(os.fsencode(run)) + LONGEST_SOCKET > SOCKET_PATH_BYTES:
        run = Path(tempfile.gettempdir()) / f"slipway-{os.geteuid()}-{tag}"
    if postgres_user() is None:
        return Layout(home=home, run=run, postgres=home / "postgres", postgres_sockets=run)
    return Layout(home=home, run=run, postgres=ROOT_HOME / tag / "postgres", postgres_sockets=ROOT_HOME / tag / "run")
