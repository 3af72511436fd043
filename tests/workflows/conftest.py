"""What the runs of workflows share: a registry, and a key to sign with, as no OIDC is here."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.containers import docker
from tests.deploy.machine import free_port
from tests.registries import running_registry
from tests.tools import need
from tests.workflows.act import Checkout, Run, Started


@dataclass
class Place:
    """Where the runs of a test push, sign and deploy to."""

    registry: str
    key: Path
    project: str = field(default_factory=lambda: f"slipway-test-{secrets.token_hex(3)}")
    port: int = field(default_factory=free_port)

    @property
    def pushed(self) -> str:
        """The repository that cd.yml pushes to: in lower case, whatever the variable says."""
        return f"{self.registry}/acme/app"

    @property
    def environ(self) -> dict[str, str]:
        """What the runner has, and GitHub would not."""
        return {
            "COSIGN_KEY": str(self.key),
            "COSIGN_PASSWORD": "",
            "EDGE_PORT": str(self.port),
            "PROJECT_NAME": self.project,
            "DRAIN_SECONDS": "1",
            "TESTCONTAINERS_RYUK_DISABLED": os.environ.get("TESTCONTAINERS_RYUK_DISABLED", "false"),
        }

    @property
    def variables(self) -> dict[str, str]:
        """Of the repository: its images go to the test's registry."""
        return {"IMAGE_REPOSITORY": f"{self.registry}/Acme/App", "COPY": f"{self.registry}/copied"}

    def start(self, checkout: Checkout, workflow: str = "cd.yml", **how: Any) -> Started:
        """Start a workflow."""
        variables = {**self.variables, **how.pop("variables", {})}
        return checkout.start(workflow, variables=variables, **{**self.environ, **how})

    def run(self, checkout: Checkout, **how: Any) -> Run:
        """Run cd.yml to its end."""
        return self.start(checkout, **how).finish()

    def pipeline(self, checkout: Checkout, *arguments: str, **environ: str) -> str:
        """Run a verb in the clone, as whoever sets up what a run needs; what it printed."""
        kept = {**os.environ, **self.environ, "HOME": str(checkout.home), **environ}
        command = [sys.executable, "-m", "pipeline", *arguments]
        done = subprocess.run(command, cwd=checkout.root, env=kept, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self) -> list[str]:
        """What its deploys run."""
        return docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}").split()

    def clean(self) -> None:
        """Remove all that its deploys made."""
        mine = f"label=com.docker.compose.project={self.project}"
        for kind, left in (("container", self.containers()),
                           ("volume", docker("volume", "ls", "--quiet", "--filter", mine).split()),
                           ("network", docker("network", "ls", "--quiet", "--filter", mine).split())):  # fmt: skip
            if left:
                docker(kind, "rm", *(["--force", "--volumes"] if kind == "container" else []), *left)
        while names := self._images():  # one name at a time: others of the same image may go with it
            docker("rmi", "--force", names[0])

    def _images(self) -> list[str]:
        """The names that images have of it: by tag, or by digest where that is all there is."""
        listed = docker("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}").splitlines()
        rows = [line.split() for line in listed if line.startswith((f"{self.registry}/", f"{self.project}-"))]
        return [f"{name}@{digest}" if tag == "<none>" else f"{name}:{tag}" for name, tag, digest in rows]


@contextlib.contextmanager
def a_place(folder: Path) -> Iterator[Place]:
    """An empty registry, a new key in FOLDER, a project's name and a port that nobody has; all gone after the block."""
    with running_registry() as registry:
        command = [need("cosign"), "generate-key-pair", f"--output-key-prefix={folder / 'cosign'}"]
        subprocess.run(command, env={**os.environ, "COSIGN_PASSWORD": ""}, check=True, capture_output=True)
        one = Place(registry, folder / "cosign.key")
        try:
            yield one
        finally:
            one.clean()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """See `a_place`."""
    with a_place(tmp_path) as one:
        yield one


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Checkout:
    """A clone for act."""
    return Checkout.make(template, tmp_path)
