"""A PostgreSQL and a Redis with TLS, in containers outside of what is deployed, as others manage them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.certificates import certificates
from tests.containers import docker, have_image
from tests.deploy.machine import free_port, wait_until

__all__ = ["PASSWORD", "Outside", "outside"]

PASSWORD = "a-password-of-the-tests-Zq8"
# The certificate is for an address that is known once they run. The keys are the tests' own: each server copies what it
# may read only as its own user.
COPY = (
    "until test -d /tls/own; do sleep 0.2; done; install -o {user} -g {user} -m 600 /tls/own/own.key /tls/own/own.pem"
    " /tmp/; exec docker-entrypoint.sh "
)
POSTGRES = (
    f"{COPY.format(user='postgres')}postgres -c ssl=on -c ssl_cert_file=/tmp/own.pem -c ssl_key_file=/tmp/own.key"
)
SOCKET = "/tmp/redis.sock"
REDIS = (
    f"{COPY.format(user='redis')}redis-server --port 0 --tls-port 6379 --tls-auth-clients no --unixsocket {SOCKET}"
    " --tls-cert-file /tmp/own.pem --tls-key-file /tmp/own.key --user default off"
    f" --user admin on '>{PASSWORD}-admin' '~*' '&*' +@all"
)
SERVES = "serves"  # what each login of the service may do; `app` migrates
GRANTS = (
    f"CREATE ROLE {SERVES} NOLOGIN",
    f"ALTER DEFAULT PRIVILEGES FOR ROLE app GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {SERVES}",
)


@dataclass(frozen=True)
class Outside:
    """Both servers: their containers, their addresses, and the file of who vouches for them."""

    containers: tuple[str, str]
    addresses: tuple[str, str]
    authority: Path

    @property
    def host(self) -> str:
        """Their address, without a port."""
        return self.addresses[0].partition(":")[0]

    def admit(self, login: str) -> dict[str, str]:
        """Let the service in as `login`, beside whom there is; return the URLs."""
        postgres, cache = self.addresses
        self.sql(f"CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}-{login}' IN ROLE {SERVES}")
        self._redis("ACL", "SETUSER", login, "on", f">{PASSWORD}-{login}", "~*", "&*", "+@all", "-@dangerous")
        verified = f"@{postgres}/shop?sslmode=verify-full&sslrootcert={self.authority}&connect_timeout=5"
        return {
            "DATABASE_URL": f"postgresql://{login}:{PASSWORD}-{login}{verified}",
            "MIGRATION_DATABASE_URL": f"postgresql://app:{PASSWORD}{verified}",
            "REDIS_URL": f"rediss://{login}:{PASSWORD}-{login}@{cache}/0?ssl_ca_certs={self.authority}",
        }

    def dismiss(self, login: str) -> None:
        """Let `login` in no more. Nobody may be there as that any longer."""
        there = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{login}'"
        wait_until(lambda: self.sql(there) == "0", f"{login} is still there", 30)
        self.sql(f"ALTER ROLE {login} NOLOGIN")
        self._redis("ACL", "DELUSER", login)

    def sql(self, query: str) -> str:
        """Return what a query gives, as text."""
        return docker("exec", self.containers[0], "psql", "-U", "app", "-d", "shop", "-tAc", query)

    def notes(self, text: str) -> str:
        """Return how many notes have that `text`."""
        return self.sql(f"SELECT count(*) FROM testing_notes WHERE text = '{text}'")

    def _redis(self, *command: str) -> None:
        admin = ("--user", "admin", "--pass", f"{PASSWORD}-admin", "--no-auth-warning")
        said = docker("exec", self.containers[1], "redis-cli", "-s", SOCKET, *admin, *command)
        assert said in ("OK", "1"), said


@contextmanager
def outside(folder: Path, *, host: str = "", network: str = "") -> Iterator[Outside]:
    """Run both at free ports of `host`, an address of this machine, or at their own ports in a Docker `network`."""
    tag = secrets.token_hex(3)
    names, ports = (f"managed-postgres-{tag}", f"managed-redis-{tag}"), (5432, 6379)
    places: tuple[tuple[str, ...], ...] = (("--network", network), ("--network", f"container:{names[0]}"))
    if host:
        ports = (free_port(), free_port())
        places = tuple(("--publish", f"{host}:{port}:{own}") for port, own in zip(ports, (5432, 6379), strict=True))
    images = (have_image("postgres:17-trixie"), have_image("redis:8-trixie"))
    database = ("--env", f"POSTGRES_PASSWORD={PASSWORD}", "--env", "POSTGRES_USER=app", "--env", "POSTGRES_DB=shop")
    shared = ("--volume", f"{folder}:/tls:ro", "--user", "0", "--entrypoint", "sh")
    try:
        for name, image, place, own, script in zip(
            names, images, places, (database, ()), (POSTGRES, REDIS), strict=True
        ):
            docker("run", "--detach", "--name", name, *place, *shared, *own, image, "-ec", script)
        if network:
            host = docker("inspect", "--format", f"{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}", names[0])
        (folder / "part").mkdir()
        certificates(folder / "part", host)
        (folder / "part/own.key").chmod(0o644)
        (folder / "part").rename(folder / "own")
        one = Outside(names, (f"{host}:{ports[0]}", f"{host}:{ports[1]}"), folder / "own/ca.pem")
        ready = ("exec", names[0], "pg_isready", "--host=127.0.0.1", "--username=app")
        wait_until(lambda: "accepting" in docker(*ready, check=False), "PostgreSQL is not up", 60)
        wait_until(lambda: docker("exec", names[1], "ls", SOCKET, check=False) == SOCKET, "Redis is not up", 60)
        for statement in GRANTS:
            one.sql(statement)
        yield one
    finally:
        for name in reversed(names):
            with suppress(AssertionError):
                docker("rm", "--force", "--volumes", name)
