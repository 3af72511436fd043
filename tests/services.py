"""PostgreSQL and Redis for a test session: containers where a Docker Engine answers, otherwise embedded servers.

They are started once, by the process that runs the session, when the first test asks: a session of unit tests starts
nothing. Workers of pytest-xdist ask over a Unix socket, because a container library would start one set per process
(testcontainers #567).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.notes import TABLES

__all__ = ["Broker", "Services", "ask", "choose", "migrate", "psql"]

POSTGRES_IMAGE = "postgres:18-trixie"
REDIS_IMAGE = "redis:8-trixie"
TEMPLATE = "slipway_test_template"
ADDRESS = "SLIPWAY_TEST_BROKER"
START_SECONDS = 120
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Services:
    """The addresses of the session's servers. `redis_url` has no database number."""

    postgres_host: str
    postgres_port: int
    postgres_user: str
    postgres_password: str
    redis_url: str

    def environ(self, database: str) -> dict[str, str]:
        """Return the settings that connect the service to `database`."""
        return {
            "POSTGRES_HOST": self.postgres_host,
            "POSTGRES_PORT": str(self.postgres_port),
            "POSTGRES_USER": self.postgres_user,
            "POSTGRES_PASSWORD": self.postgres_password,
            "POSTGRES_DB": database,
        }


def choose() -> str:
    """Return `docker` or `embedded`: the variable SLIPWAY_TEST_SERVICES, otherwise what this machine has."""
    wish = os.environ.get("SLIPWAY_TEST_SERVICES", "")
    if wish:
        return wish
    from docker.client import DockerClient
    from docker.errors import DockerException

    with contextlib.suppress(DockerException), contextlib.closing(DockerClient.from_env(timeout=3)) as client:
        client.ping()
        return "docker"
    # docker-py leaves its socket open when nothing answers; collected later, during an import, its warning is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return "embedded"


@contextlib.contextmanager
def start(kind: str) -> Iterator[Services]:
    """Run both servers, with the migrated template database, until the block ends."""
    with contextlib.ExitStack() as stack:
        services = stack.enter_context(_containers() if kind == "docker" else _embedded())
        psql(services, "postgres", f"CREATE DATABASE {TEMPLATE}")
        migrate(services.environ(TEMPLATE))
        psql(services, TEMPLATE, TABLES)  # beside those of the service
        yield services


def migrate(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m backend.migrations upgrade` as a deploy does. Raise `CalledProcessError` where it fails."""
    command = [sys.executable, "-m", "backend.migrations", "upgrade", *arguments]
    return subprocess.run(command, env={**os.environ, **environ}, cwd=ROOT, check=True, capture_output=True, text=True)


def psql(services: Services, database: str, statement: str) -> None:
    """Run one statement."""
    import asyncio

    import asyncpg

    async def run() -> None:
        connection = await asyncpg.connect(
            host=services.postgres_host,
            port=services.postgres_port,
            user=services.postgres_user,
            password=services.postgres_password,
            database=database,
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:  # so that a test with a running loop may call it
        thread.submit(lambda: asyncio.run(run())).result()


def ask() -> Services:
    """Return the session's servers, from the process that has them. The first call waits until they are up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(START_SECONDS)
        client.connect(os.environ[ADDRESS])
        answer = json.loads(client.makefile().read())
    if "error" in answer:
        raise RuntimeError(f"the test services did not start: {answer['error']}")
    return Services(**answer)


class Broker:
    """The owner of the servers: starts them at the first request, gives out their address, stops them at the end."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._stack = contextlib.ExitStack()
        self._folder = tempfile.TemporaryDirectory(prefix="slipway-test-")
        path = f"{self._folder.name}/broker"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._answer: dict[str, object] = {}
        os.environ[ADDRESS] = path
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the servers."""
        del os.environ[ADDRESS]
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._stack.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the session is over
                return
            with client, contextlib.suppress(BrokenPipeError):
                client.sendall(json.dumps(self._answer or self._start()).encode())

    def _start(self) -> dict[str, object]:
        try:
            self._answer = asdict(self._begin())
        except Exception as error:  # noqa: BLE001 - the error is the answer
            detail = getattr(error, "stderr", None) or error
            self._answer = {"error": f"{type(error).__name__}: {detail}"}
        return self._answer

    def _begin(self) -> Services:
        try:
            return self._stack.enter_context(start(self.kind))
        except Exception as error:
            if self.kind == "embedded" or os.environ.get("SLIPWAY_TEST_SERVICES"):
                raise
            # An engine that cannot pull (offline, behind a proxy, rate-limited) is not a reason to test nothing.
            os.write(2, f"\nno containers ({type(error).__name__}: {error}): embedded servers instead\n".encode())
            self.kind = "embedded"
            return self._stack.enter_context(start(self.kind))


@contextlib.contextmanager
def _embedded() -> Iterator[Services]:
    from pipeline.engines.embedded import throwaway_postgres, throwaway_valkey

    with throwaway_postgres() as postgres, throwaway_valkey() as valkey:
        yield Services(postgres.host, postgres.port, postgres.user, postgres.password, f"unix://{valkey.socket}")


@contextlib.contextmanager
def _containers() -> Iterator[Services]:
    os.environ.setdefault("TC_POOLING_INTERVAL", "0.1")  # by default it polls once a second
    from testcontainers.community.postgres import PostgresContainer
    from testcontainers.community.redis import RedisContainer

    # Given explicitly, because the library would take POSTGRES_* from a developer's environment.
    password = secrets.token_urlsafe(16)
    postgres = PostgresContainer(POSTGRES_IMAGE, username="postgres", password=password, dbname="postgres", driver=None)
    postgres.with_command("postgres -c fsync=off -c full_page_writes=off -c synchronous_commit=off")
    with postgres, RedisContainer(REDIS_IMAGE) as redis:
        yield Services(
            postgres.get_container_host_ip(),
            int(postgres.get_exposed_port(5432)),
            "postgres",
            password,
            f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}",
        )
