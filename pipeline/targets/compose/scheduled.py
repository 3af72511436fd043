"""The scheduled backups of a compose environment: the service `backup` of docker-compose.yml, and its volume."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pipeline.config.secrets import ADDRESS_SECRET
from pipeline.system.waiting import attempts
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.compose.artifacts import Kept
from pipeline.targets.compose.replicas import Replicas
from pipeline.targets.compose.stack import DEFINITION, FILES
from pipeline.targets.compose.variables import Variables

__all__ = ["LABEL", "STOP_SECONDS", "VERB", "Scheduled"]

log = logging.getLogger(__name__)

SERVICE = "backup"
RUNNING = "backend.backups backup"  # in the list of its processes: it makes one now
PROFILE = {"COMPOSE_PROFILES": SERVICE}
LABEL = "slipway.backups"  # with the name of the project: no deploy sweeps what has it
VERB = "slipway.verb"
STOP_SECONDS = 60  # for a program that is given up to remove what it began
START_SECONDS = 15
# As the service is: whoever restores what may come from anywhere has no rights to lose.
CLOSED = (
    "--read-only",
    "--tmpfs",
    "/tmp:size=64m,mode=1777",  # noqa: S108 - of a container
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
)
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class Scheduled:
    """The container that makes backups by itself, where the environment has `backups`."""

    variables: Variables
    replicas: Replicas

    def serving(self) -> Kept | None:
        """Return the release of the replicas; None where none runs that is kept."""
        artifacts = self.variables.artifacts
        names = (one.labels.get("slipway.release", "") for one in self.replicas.all() if one.running)
        return next((artifacts.find(name) for name in names if artifacts.knows(name)), None)

    def make_volume(self) -> None:
        """Make the volume of the backups, if there is none."""
        # Not Compose's, which would remove it with the data; and without the label of the project, by which a database
        # that is gone is looked for.
        stack = self.variables.stack
        if not stack.docker.succeeds("volume", "inspect", stack.backups):
            stack.docker.do("volume", "create", "--label", f"{LABEL}={stack.name}", stack.backups)

    def questions(self) -> dict[str, str]:
        """Return the containers that answer one question each, with its verb, running or not."""
        label = f"label={LABEL}={self.variables.stack.name}"
        form = f'{{{{.Names}}}} {{{{.Label "{VERB}"}}}}'
        listed = self.variables.stack.docker.ask("ps", "--all", "--filter", label, "--format", form)
        return dict(line.split(" ", 1) for line in listed.splitlines())

    def end(self, *names: str) -> None:
        """End these containers, if they are still there: to give the client up that started one does not end it."""
        docker = self.variables.stack.docker
        for name in names:
            if docker.inspect(name):
                docker.succeeds("stop", "--time", str(STOP_SECONDS), name)
                docker.succeeds("rm", "--force", name)

    def settings(self) -> dict[str, str]:
        """Return the plain settings of its container, of the release that serves or those of now."""
        variables = self.variables.environment(self.serving())
        environment = self._definition(variables)["environment"]
        return {name: str(value) for name, value in environment.items() if value is not None}

    def mounts(self) -> list[str]:
        """Return the options of `docker run` that mount its volume, and its secrets but those of the database."""
        secret = self.variables.secret_file(ADDRESS_SECRET)
        volume = f"type=volume,source={self.variables.stack.backups},target=/backups"
        return ["--mount", volume, "--volume", f"{secret}:/run/secrets/{secret.name}:ro", *CLOSED]

    def _definition(self, variables: dict[str, str]) -> dict[str, Any]:
        # Compose leaves out what is in a profile that nobody asks for.
        services = self.variables.stack.services({**variables, **PROFILE})
        definition: dict[str, Any] = services[SERVICE]
        return definition

    def drift(self) -> list[str]:
        """Return a line where the next deploy would start, replace or remove it."""
        there, kept = self._there(), self.serving()
        if self.variables.env.backups is None:
            return [f"{there.name} makes backups, which the environment has no more"] if there else []
        if kept is None or kept.images.backup is None:
            return []
        if there is None:
            return [f"{SERVICE} is missing"]
        wanted = self.variables.stack.definitions({**self.variables.environment(kept), **PROFILE})
        same = there.labels.get(DEFINITION) == wanted[SERVICE] and there.image == kept.images.backup
        return [] if same else [f"{SERVICE} no longer matches {FILES[0]} and .env"]

    def roll(self, kept: Kept) -> None:
        """Start it with the image of `kept`, replace it if anything about it changed, or remove it if it is not wanted.

        That nothing is scheduled fails no deploy: a warning, and later `doctor`, says so.
        """
        stack, there = self.variables.stack, self._there()
        if self.variables.env.backups is None:
            self.stop()
            return
        if kept.images.backup is None:
            log.warning("this release was built without an image of backups: what makes them stays as it is")
            return
        if there and there.running and RUNNING in stack.docker.ask("top", there.ident):
            log.warning("a backup runs: the container that makes them is replaced by the next deploy")
            return
        self.make_volume()
        environment = self.variables.environment(kept)
        stack.do("up", "--detach", "--no-deps", "--no-build", SERVICE, env=environment)
        for _ in attempts(START_SECONDS, every=TICK_SECONDS):
            there = self._there()
            if there and (there.health in ("healthy", "unhealthy") or there.restarts):
                break
        for line in self.findings():
            log.warning(line)

    def stop(self) -> None:
        """Stop it, and remove it."""
        if there := self._there():
            self.variables.stack.docker.do("stop", there.ident)
            self.variables.stack.docker.do("rm", "--force", there.ident)

    def findings(self) -> list[str]:
        """Return a line where it does not make the backups that it should."""
        there, env = self._there(), self.variables.env
        if env.backups is None:
            return []
        if there is None:
            return [f"nothing makes the backups of {env.name}: `nox -s deploy -- {env.name}` starts what does"]
        if not there.running or there.restarts:
            return [f"{there.name}, which makes the backups, does not run: {self._words(there)}"]
        return [f"{there.name}: {there.said}"] if there.health == "unhealthy" else []

    def _there(self) -> Container | None:
        return next(iter(self.variables.stack.containers(SERVICE)), None)

    def _words(self, there: Container) -> str:
        return last_words(self.variables.stack.docker, there.ident)
