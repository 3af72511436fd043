"""The compose target: the service of docker-compose.yml on one host, behind its own edge."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.place_of_data import settings_problems
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.config.secrets import SECRET_FILES, closed_problem, write_secret_files
from pipeline.config.settings import edge_port, ensure_env, read_values, split_secrets
from pipeline.engines.docker import Docker, docker_problems
from pipeline.errors import DeployFailed, UsageError
from pipeline.images.build import Images, PushedImages, find_pushed, image_repository
from pipeline.registry.image import image_ids
from pipeline.registry.reference import is_digest, split_digest
from pipeline.releases.model import Artifact, Running, short
from pipeline.system.git import read_source
from pipeline.system.ports import describe_process, port_free, port_holder
from pipeline.system.progress import Progress
from pipeline.targets.common.container import Container, last_words
from pipeline.targets.common.containers import ContainerStand, sweep
from pipeline.targets.common.difference import difference
from pipeline.targets.common.here import KeptHere
from pipeline.targets.common.rehearsal import rehearse
from pipeline.targets.common.rolling import roll
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.compose.artifacts import Artifacts
from pipeline.targets.compose.data import find_data_problems
from pipeline.targets.compose.fleet import ComposeFleet
from pipeline.targets.compose.problems import image_problems, login_problems, taken_problems, volume_findings
from pipeline.targets.compose.replicas import Replicas, slot_of
from pipeline.targets.compose.stack import Stack, project_name_problem
from pipeline.targets.compose.variables import Variables

__all__ = ["ComposeTarget"]

SURROUNDINGS = ("frontend", "postgres", "redis")
DEFINITION = "com.docker.compose.config-hash"
RECENT_SECONDS = 3600  # a restart longer ago is no longer worth a finding
STORES = {"POSTGRES_HOST": "postgres", "REDIS_HOST": "redis"}  # as docker-compose.yml sets them for the service
DATA_FOLDER = "/var/lib/postgresql"


class ComposeTarget(KeptHere):
    """`nox -s deploy -- compose`: see `pipeline.targets.Target` for what each method promises."""

    env: ComposeEnvironment

    def __init__(self, project: Project, env: ComposeEnvironment, progress: Progress) -> None:
        self.project, self.env, self.progress = project, env, progress
        self.home = project.state(env.name)
        self.docker = Docker(project.root, progress.say)
        self._read_settings()
        self._rolled_out: dict[str, Container] = {}
        self._repository: str | None = None  # of the release that was asked for by digest

    def _read_settings(self) -> None:
        self.values = read_values(self.project.root)
        self.port = edge_port(self.values)
        self.url = self.env.url.replace("{EDGE_PORT}", str(self.port))
        self.stack = Stack(self.project.root, self.values.get("PROJECT_NAME", self.project.name), self.docker)
        self.replicas = Replicas(self.stack, f"http://127.0.0.1:{self.port}")
        self.artifacts = Artifacts(self.project, self.home / "artifacts", self.docker, self.stack.name)
        self.variables = Variables(self.project, self.env, self.values, self.stack, self.artifacts)

    # --- plan ---

    def problems(self) -> list[str]:
        """Check Docker, settings, secrets, the project's name and the port."""
        if ensure_env(self.project.root):
            self.progress.say("wrote .env with fresh secrets (mode 0600)")
            self._read_settings()
        problems = docker_problems(compose=True)
        problems += settings_problems(self.project.root, self.values, "compose runs a {store} of its own", STORES)
        named, closed = project_name_problem(self.stack.name), closed_problem(self.secrets)
        problems += [problem for problem in (named, closed) if problem]
        scripts = self.project.root / "docker/postgres/init-scripts"
        problems += [
            f"{path}: PostgreSQL's user in the container cannot read it: `chmod -R go+rX {scripts.parent}`"
            for path in (scripts, *scripts.iterdir())
            if not path.stat().st_mode & 0o004
        ]
        return problems or self._engine_problems()

    def _engine_problems(self) -> list[str]:
        taken = taken_problems(self.stack, self.env.name)
        if taken:
            return taken
        mine = any(self.port in container.ports for container in self.stack.containers("frontend"))
        if not mine and not port_free(self.port):
            holder = describe_process(port_holder(self.port))
            return [f"EDGE_PORT: port {self.port} is taken by {holder}: stop that, or set another EDGE_PORT in .env"]
        return login_problems(self.variables)

    def data_problems(self, *, expected: bool, release: str | None = None) -> list[str]:
        """Check PostgreSQL's volume against the image that would run on it."""
        del release  # the data stores are not part of a release
        return find_data_problems(self.variables, expected=expected)

    def heal(self) -> bool:
        """Remove the throwaway containers of a killed deploy; restart what was stopped with the engine or by hand."""
        swept = sweep(self.docker, self.stack.name)
        if swept:
            self.progress.warn(f"removed {len(swept)} throwaway containers and networks that a killed deploy had left")
        self._write_secrets()
        stopped = [one for one in self.stack.containers() if not one.running and one.service in SURROUNDINGS]
        kept = [one for one in self.replicas.all() if not one.running and one.labels.get("slipway.release")]
        if not stopped:
            return False
        self.progress.warn("not everything runs that should (was the machine restarted?): starting it again")
        self.docker.do("start", *(one.ident for one in [*stopped, *kept]))
        return True

    # --- build and check ---

    def build(self) -> Artifact:
        """Build both images of the release, and the edge's."""
        images = Images(self.project.root, self.stack.name, self.progress.say)
        built = images.build()
        self.variables.frontend = images.build_frontend()
        return self.artifacts.keep(built, self.variables.config(), read_source(self.project.root)).artifact

    def recorded(self, name: str) -> Artifact:
        """Return a release whose images are kept."""
        return self.artifacts.find(name).artifact

    def adopt(self, reference: str | None) -> str | None:
        """Return the release of an image digest; pull it where it is not kept here."""
        if reference is None or not is_digest(reference):
            return None
        self._repository = split_digest(reference)[0] or image_repository() or None
        return self.artifacts.adopt(reference, self._repository, self.variables.config()).name

    def running(self) -> Running:
        """Return the replicas, and what is wrong with the edge and the data stores around them."""
        around = {one.service: one for one in self.stack.containers() if one.service in SURROUNDINGS}
        problems = [
            f"{name} is {f'{around[name].state} {around[name].health}'.strip() if name in around else 'missing'}"
            for name in SURROUNDINGS
            if name not in around or not around[name].ready
        ]
        wanted = self.stack.definitions(self.variables.environment(None))
        problems += [
            f"{name} no longer matches docker-compose.yml and .env"
            for name, container in around.items()
            if container.labels.get(DEFINITION) != wanted[name]
        ]
        network = self.stack.network("frontend")
        problems += [
            f"the edge does not route to {replica.name}"
            for replica in self.replicas.all()
            if slot_of(replica) is not None and network not in replica.networks
        ]
        replicas = self.replicas.seen(self.variables.wanted)
        return Running(replicas=replicas, wanted=self.env.replicas, problems=tuple(problems))

    def pushed(self, new: Artifact) -> PushedImages | None:
        """Return the images that were pulled by digest. The edge's image is built here, from the working tree."""
        place = self._repository
        if place is None or not is_digest(new.name.partition("+")[0]):
            return None
        pushed = find_pushed(f"{place}@{new.name.partition('+')[0]}")
        here = self.artifacts.find(new.name).images
        for part in ("backend", "migrate"):
            ident = getattr(here, part)
            # An image's ID is the digest of its config or, with the containerd store, of its manifest or index.
            if ident not in image_ids(pushed.place(part)):
                raise DeployFailed(f"{ident} is not the image {pushed.place(part)} that it should be: pull it again")
        return pushed

    def objections(self, new: Artifact) -> list[str]:
        """List what is obviously wrong with the image."""
        return image_problems(self.docker.image(self.artifacts.find(new.name).images.backend))

    def findings(self) -> list[str]:
        """Report containers that the engine restarted recently, and a data store whose disk is nearly full."""
        findings = []
        for one in self.stack.containers():
            if one.restarts and time.time() - datetime.fromisoformat(one.started).timestamp() < RECENT_SECONDS:
                words = last_words(self.docker, one.ident)
                findings.append(
                    f"{one.name} ended and was started again {one.restarts} times, last at {one.started}: {words}"
                )
        for one in self.stack.containers("postgres"):
            if one.running:
                findings += volume_findings(one.name, self.docker.ask("exec", one.ident, "df", "-Pk", DATA_FOLDER))
        return findings

    def stores(self, release: str) -> Mapping[str, Any]:
        """Ask PostgreSQL and Redis from within a replica of the release."""
        mine = [one for one in self.replicas.all() if one.running and one.labels.get("slipway.release") == release]
        if not mine:
            return {}
        return read_stores(self.docker.ask("exec", mine[0].ident, "python", *probe_command("database", "redis")))

    def difference(self, new: Artifact, old: Artifact) -> list[str]:
        """Describe the files and settings that differ."""
        here, there = self.artifacts.find(new.name), self.artifacts.find(old.name)
        return difference(here.files, there.files, here.config, there.config)

    def database_runs(self, new: Artifact) -> bool:
        """Return whether PostgreSQL's container runs."""
        del new  # each release uses the same one
        return any(container.running for container in self.stack.containers("postgres"))

    def migrations(self, release: Artifact, *arguments: str, database: bool = True) -> str:
        """Run the migrations in a one-shot container of the release's own image, as the service's role."""
        kept = self.artifacts.find(release.name)
        if not database:
            return self.docker.ask("run", "--rm", "--network", "none", kept.images.migrate, *arguments)
        environment = self.variables.environment(kept)
        return self.stack.do("run", "--rm", "--no-deps", "-T", "migrate", *arguments, env=environment)

    def rehearse(self, new: Artifact, old: Artifact | None) -> None:
        """Rehearse on a throwaway PostgreSQL and Redis of the same images."""
        images = (self._image("postgres"), self._image("redis"))
        stand = ContainerStand(self.stack.name, self.docker, self.artifacts.find, images, self.secrets)
        rehearse(stand, new, old, self.token())

    # --- migrate and roll out ---

    def prepare(self, new: Artifact) -> None:
        """Start PostgreSQL, Redis and the edge."""
        del new  # none of this depends on the release
        self._write_secrets()
        if not self.variables.edge_image():  # the first release here was built elsewhere
            self.variables.frontend = Images(self.project.root, self.stack.name, self.progress.say).build_frontend()
        environment = self.variables.environment(None)
        self.stack.do("up", "--detach", "--wait", "--no-deps", "--no-build", "postgres", "redis", env=environment)
        wrong = login_problems(self.variables)
        if wrong:
            raise DeployFailed(*wrong)
        before = {container.ident for container in self.stack.containers("frontend") if container.running}
        started = time.monotonic()
        self.stack.do("up", "--detach", "--wait", "--no-deps", "--no-build", "frontend", env=environment)
        after = {container.ident for container in self.stack.containers("frontend")}
        if before and before != after:
            seconds = time.monotonic() - started
            self.progress.warn(f"the edge itself changed: its port was closed for up to {seconds:.1f} s")

    def roll_out(self, new: Artifact, watch: Callable[[str], None], *, back: bool = False) -> None:
        """Roll out by `pipeline.targets.common.rolling`."""
        self._rolled_out.clear()
        kept = self.artifacts.find(new.name)
        fleet = ComposeFleet(
            replicas=self.replicas,
            release=kept.name,
            config=self.variables.wanted(kept.name),
            environment=partial(self.variables.environment, kept),
            deadline=time.monotonic() + self.env.timeout,
            started=self._rolled_out,
        )
        roll(fleet, self.env.replicas, watch, back=back)

    def trouble(self) -> str | None:
        """Report a replica whose process is no longer the one that got ready, or that is unhealthy."""
        seen = {facts["Id"]: Container.of(facts) for facts in self.docker.inspect(*self._rolled_out)}
        for ident, before in self._rolled_out.items():
            now, release = seen.get(ident), before.labels.get("slipway.release", "")
            if now is None:
                return f"release {short(release)}: its replica {before.name} was removed after it was ready"
            if not now.running or now.started != before.started:
                return f"release {short(release)} ended after it was ready: {last_words(self.docker, ident)}"
            if now.health == "unhealthy":
                return f"release {short(release)} became unhealthy after it was ready: {now.said[:200]}"
        return None

    def withdraw(self) -> None:
        """Stop every replica, except those of a plain `docker compose up`, which go on serving."""
        self._rolled_out.clear()
        self._stop([replica for replica in self.replicas.all() if slot_of(replica) is not None])

    def _stop(self, containers: list[Container]) -> None:
        self.replicas.begin_stop(containers)
        for container in containers:
            self.replicas.stop(container, lambda: None)

    # --- the rest ---

    @property
    def secrets(self) -> Path:
        """The folder of the secret files that docker-compose.yml names."""
        return self.project.root / SECRET_FILES

    def token(self) -> str | None:
        """Return `SERVICE_TOKEN`."""
        return self.variables.token

    def token_changes(self) -> bool:
        """Compare the token with those of the replicas, each of which has a hash of its token as a label."""
        mark = self.variables.token_mark
        return any(replica.labels.get("slipway.token", mark) != mark for replica in self.replicas.all())

    def prune(self, retained: list[str]) -> None:
        """Remove the releases, and the tags of images, that nothing refers to."""
        running = {replica.labels.get("slipway.release", "") for replica in self.replicas.all()}
        self.artifacts.prune({*retained, *running})

    def down(self, *, volumes: bool) -> None:
        """Drain the replicas, then stop everything; remove networks and, with `volumes`, data, releases and reports."""
        problems = docker_problems(compose=True) or taken_problems(self.stack, self.env.name)
        if problems:
            raise UsageError(*problems)
        self._stop(self.replicas.all())
        sweep(self.docker, self.stack.name)
        options = ["--volumes"] if volumes else []
        self.stack.do("--profile", "*", "down", "--remove-orphans", *options, env=self.variables.environment(None))
        if volumes:
            self.artifacts.prune(set())
            shutil.rmtree(self.home, ignore_errors=True)

    def _write_secrets(self) -> None:
        write_secret_files(self.secrets, split_secrets(self.values)[1])

    def _image(self, service: str) -> str:
        """Return the image of a `service` of docker-compose.yml."""
        text = self.docker.ask(*self.stack.command("config", "--format", "json"), env=self.variables.environment(None))
        config: dict[str, Any] = json.loads(text)
        return str(config["services"][service]["image"])
