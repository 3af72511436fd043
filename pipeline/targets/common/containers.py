"""The rehearsal's stand of targets that ship images: throwaway containers in their own network."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.logins import Logins
from pipeline.config.secrets import delivered_secrets
from pipeline.config.settings import settings_environment
from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.images.build import ReleaseImages
from pipeline.releases.model import Artifact
from pipeline.system.waiting import attempts
from pipeline.targets.common.container import BACKEND_PORT, Container, last_words
from pipeline.targets.common.rehearsal import REHEARSAL, cannot_live, fails_on_empty
from pipeline.targets.common.rights import PSQL, Throwaway

__all__ = ["THROWAWAY", "ContainerStand", "replica_environment", "secret_mounts", "sweep"]

THROWAWAY = "slipway.throwaway"
START_SECONDS = 60
STORES = ("POSTGRES_PASSWORD", "REDIS_PASSWORD")  # of the real ones, which a throwaway replica does not reach


class Imaged(Protocol):
    """The part of a release that the stand needs: its images and its plain settings."""

    @property
    def images(self) -> ReleaseImages: ...

    @property
    def config(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class ThrowawayDatabase:
    """A throwaway PostgreSQL: its network, the environment (password included) that leads to it, its container."""

    network: str
    environment: dict[str, str]
    server: str


@dataclass(frozen=True)
class ContainerStand:
    """See `pipeline.targets.common.rehearsal.Stand`. `images`: those of the real PostgreSQL and Redis, in order."""

    project: str
    docker: Docker
    find: Callable[[str], Imaged]  # a release by its name
    images: tuple[str, str]
    secrets: Path
    throwaway: Throwaway

    @contextmanager
    def database(self, new: Artifact, *to: str) -> Iterator[ThrowawayDatabase]:
        """Yield a migrated PostgreSQL whose data is in memory."""
        with self.server("--tmpfs", "/var/lib/postgresql:mode=1777") as server:
            logins = self.logins(server)
            there = server.environment
            place = {name: there[name] for name in ("POSTGRES_HOST", "POSTGRES_PORT")}
            place["POSTGRES_DB"] = self.throwaway.database
            superuser = {"POSTGRES_SUPERUSER": there["POSTGRES_USER"]}
            superuser["POSTGRES_SUPERUSER_PASSWORD"] = there["POSTGRES_PASSWORD"]
            own = {"POSTGRES_USER": logins.login, "POSTGRES_PASSWORD": logins.owner_password, **superuser}
            image = self.find(new.name).images.migrate
            try:
                self.run(image, "upgrade", *to, network=server.network, environment={**place, **own, **REHEARSAL})
            except SlipwayError as error:
                raise fails_on_empty(error.problems[0]) from error
            service = {"POSTGRES_USER": logins.user, "POSTGRES_PASSWORD": logins.password}
            yield replace(server, environment={**place, **service})

    @contextmanager
    def server(self, *options: str) -> Iterator[ThrowawayDatabase]:
        """Yield a PostgreSQL with an empty database and its superuser. `options`: where its data is."""
        network = f"{self.project}-rehearsal-{randomness.token_hex(4)}"
        password = randomness.token_urlsafe(24)
        self.docker.do("network", "create", "--label", f"{THROWAWAY}={self.project}", network)
        try:
            postgres = self._run(
                "postgres",
                self.images[0],
                network=network,
                environment={"POSTGRES_PASSWORD": password},
                options=options,
                command=["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"],
            )
            ready = ["pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"]
            self._wait(postgres, lambda: self.docker.succeeds("exec", postgres, *ready))
            environment = {
                "POSTGRES_HOST": "postgres",
                "POSTGRES_PORT": "5432",
                "POSTGRES_USER": "postgres",
                "POSTGRES_PASSWORD": password,
                "POSTGRES_DB": "postgres",
            }
            yield ThrowawayDatabase(network, environment, postgres)
        finally:
            sweep(self.docker, self.project, network)

    @contextmanager
    def replica(self, release: Artifact, database: ThrowawayDatabase) -> Iterator[str]:
        """Yield the base address of one replica of `release`, on a loopback port that Docker chooses."""
        redis = ["redis-server", "--save", ""]
        self._run("redis", self.images[1], network=database.network, environment={}, command=redis)
        kept = self.find(release.name)
        environment = {**replica_environment(kept.config, database.environment), "RELEASE": release.name}
        options = ["--publish", f"127.0.0.1::{BACKEND_PORT}", *secret_mounts(self.secrets)]
        ident = self._run(
            "replica", kept.images.backend, network=database.network, environment=environment, options=options
        )
        try:
            self._wait(ident, lambda: self._seen(ident).health == "healthy")
        except SlipwayError as error:
            said = self._seen(ident).said if self._seen(ident).running else last_words(self.docker, ident)
            raise cannot_live(release, said or error.problems[0]) from error
        address = self.docker.ask("port", ident, f"{BACKEND_PORT}/tcp").splitlines()[0]
        yield f"http://{address}"

    def logins(self, server: ThrowawayDatabase) -> Logins:
        """Make an empty database with the roles of the real one on the throwaway `server`; return who logs in."""
        return self.throwaway.make(partial(self._psql, server))

    def _psql(self, database: ThrowawayDatabase, name: str, sql: str) -> None:
        """Run `sql`, which may have a secret, in the database `name` of the throwaway server, as its superuser."""
        place = ("--username=postgres", f"--dbname={name}")  # by the server's own socket, which asks for no password
        self.docker.ask("exec", "--interactive", database.server, *PSQL, *place, given=sql)

    def run(
        self,
        image: str,
        *command: str,
        network: str,
        environment: Mapping[str, str],
        options: Sequence[str] = (),
        **how: Any,
    ) -> str:
        """Run the `command` of an `image` to its end in `network`; return its output. `how` is as for `Docker.do`.

        The values of `environment` stay out of the command line.
        """
        given = [word for name in environment for word in ("--env", name)]
        place = ("--network", network, *self._label())
        return self.docker.do("run", "--rm", *place, *given, *options, image, *command, env=environment, **how)

    def _run(
        self,
        name: str,
        image: str,
        *,
        network: str,
        environment: dict[str, str],
        options: Sequence[str] = (),
        command: Sequence[str] = (),
    ) -> str:
        """Start a container that is called `name` in `network`; return its ID.

        The values of `environment` stay out of the command line.
        """
        given = [word for variable in environment for word in ("--env", variable)]
        place = ["--network", network, "--network-alias", name]
        arguments = ["run", "--detach", *self._label(), *place, *given, *options, image, *command]
        return self.docker.do(*arguments, env=environment).strip()

    def _label(self) -> list[str]:
        return ["--label", f"{THROWAWAY}={self.project}"]

    def _seen(self, ident: str) -> Container:
        return Container.of(self.docker.inspect(ident)[0])

    def _wait(self, ident: str, ready: Callable[[], bool]) -> None:
        for _ in attempts(START_SECONDS, every=0.1):
            if ready():
                return
            if not self._seen(ident).running:
                raise SlipwayError(f"a throwaway container ended: {last_words(self.docker, ident)}")
        raise SlipwayError(f"a throwaway container was not ready within {START_SECONDS} s")


def replica_environment(config: Mapping[str, str], database: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a throwaway replica of a release with the settings `config`, without its secrets."""
    return {
        **settings_environment(config),
        **database,
        "BACKEND_HOST": "0.0.0.0",  # noqa: S104 - of a container
        "BACKEND_PORT": str(BACKEND_PORT),
        "REDIS_URL": "redis://redis",  # not REDIS_HOST, which outside development needs a password
        "DRAIN_SECONDS": "0",
    }


def secret_mounts(folder: Path) -> list[str]:
    """Return Docker's options that mount the secrets in `folder` into a throwaway replica."""
    # Docker would make a folder of a file that is not there, as that of a new secret is not in a dry run.
    files = [folder / name for name in delivered_secrets() if name not in STORES and (folder / name).exists()]
    return [word for file in files for word in ("--volume", f"{file}:/run/secrets/{file.name}:ro")]


def sweep(docker: Docker, project: str, network: str | None = None) -> list[str]:
    """Remove the throwaway containers and networks of `project` (or of one `network`); return what was removed."""
    label = f"label={THROWAWAY}={project}"
    within = ["--filter", f"network={network}"] if network else []
    idents = docker.ask("ps", "--all", "--quiet", "--filter", label, *within).split()
    if network is None:  # on compose: a `migrate` whose deploy was killed together with the client that removes it
        one_shot = [f"label=com.docker.compose.{part}" for part in (f"project={project}", "oneoff=True")]
        filters = [word for one in (*one_shot, "status=exited") for word in ("--filter", one)]
        idents += docker.ask("ps", "--all", "--quiet", *filters).split()
    if idents:
        idents = list(dict.fromkeys(idents))  # one may be both, and is removed once
        docker.do("rm", "--force", "--volumes", *idents)
    named = [network] if network else docker.ask("network", "ls", "--quiet", "--filter", label).split()
    if named:
        docker.do("network", "rm", *named)
    return [*idents, *named]
