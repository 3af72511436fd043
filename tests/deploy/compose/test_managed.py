"""A PostgreSQL and a Redis with TLS outside of the project, as others manage them: nothing runs in their place."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.certificates import certificates
from tests.containers import docker, have_image
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import free_port, wait_until
from tests.notes import NOTES

pytestmark = [pytest.mark.e2e, pytest.mark.needs("openssl")]

PASSWORD = "a-password-of-the-tests-Zq8"
# The keys are the tests' own: each server copies what it may read only as its own user.
COPY = "install -o {user} -g {user} -m 600 /tls/own.key /tls/own.pem /tmp/ && "
POSTGRES = (
    f"{COPY.format(user='postgres')}exec docker-entrypoint.sh postgres -c ssl=on -c ssl_cert_file=/tmp/own.pem"
    " -c ssl_key_file=/tmp/own.key"
)
REDIS = (
    f"{COPY.format(user='redis')}exec docker-entrypoint.sh redis-server --port 0 --tls-port 6379 --tls-auth-clients no"
    " --tls-cert-file /tmp/own.pem --tls-key-file /tmp/own.key --user default off"
    f" --user app on '>{PASSWORD}-redis' '~*' '&*' +@all -@dangerous"
)


@pytest.fixture(name="urls")
def _urls(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start both at ports of this host, where containers reach them by its address in Docker's own network."""
    host = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}")
    authority, tag = certificates(tmp_path, host), secrets.token_hex(3)
    (tmp_path / "own.key").chmod(0o644)
    names, ports = (f"managed-postgres-{tag}", f"managed-redis-{tag}"), (free_port(), free_port())
    images = (have_image("postgres:17-trixie"), have_image("redis:8-trixie"))
    shared = ("--volume", f"{tmp_path}:/tls:ro", "--user", "0", "--entrypoint", "sh")
    own = (("--env", f"POSTGRES_PASSWORD={PASSWORD}", "--env", "POSTGRES_USER=app", "--env", "POSTGRES_DB=shop"), ())
    try:
        for name, image, port, inner, options, script in zip(
            names, images, ports, (5432, 6379), own, (POSTGRES, REDIS), strict=True
        ):
            publish = ("--publish", f"{host}:{port}:{inner}")
            docker("run", "--detach", "--name", name, *publish, *shared, *options, image, "-ec", script)
        ready = ("exec", names[0], "pg_isready", "--host=127.0.0.1", "--username=app")
        wait_until(lambda: "accepting" in docker(*ready, check=False), "PostgreSQL is up", 60)
        yield {
            "DATABASE_URL": f"postgresql://app:{PASSWORD}@{host}:{ports[0]}/shop?sslmode=verify-full"
            f"&sslrootcert={authority}&connect_timeout=5",
            "REDIS_URL": f"rediss://app:{PASSWORD}-redis@{host}:{ports[1]}/0?ssl_ca_certs={authority}",
        }
    finally:
        for name in names:
            with suppress(AssertionError):
                docker("rm", "--force", "--volumes", name)


def test_are_used_and_nothing_runs_in_their_place(urls: dict[str, str], checkout: ComposeCheckout) -> None:
    """Deployed, changed and brought back; neither container nor volume of a store is made; the data outlives it all."""
    checkout.set_env(**urls)
    first = checkout.proved()
    assert "(DATABASE_URL), which others manage" in first.stderr
    assert PASSWORD not in first.stderr + first.stdout
    assert checkout.containers("postgres") == checkout.containers("redis") == []
    volumes = docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={checkout.project}")
    assert {name.rpartition("_")[2] for name in volumes.split()} == {"edge"}
    row = checkout.write_note("managed")["id"]
    ready = checkout.request("GET", "/ready").json()["checks"]
    assert {name: ready[name]["state"] for name in ("database", "schema", "redis")} == dict.fromkeys(
        ("database", "schema", "redis"), "ok"
    )
    assert checkout.run("doctor").code == 0
    assert checkout.status()["problems"] == []
    checkout.change("another line")
    checkout.commit()
    assert checkout.proved().release != first.release
    assert checkout.run("rollback").code == 0
    assert checkout.run("down", "--volumes").code == 0
    checkout.proved()
    assert checkout.request("GET", f"{NOTES}/{row}").status_code == 200


def test_an_address_of_this_machine_is_refused(checkout: ComposeCheckout) -> None:
    """In a container it is the container's own."""
    checkout.set_env(DATABASE_URL=f"postgresql://app:{PASSWORD}@localhost/shop")
    refused = checkout.deploy()
    assert refused.code == 2
    assert [line for line in refused.problems() if line.startswith("DATABASE_URL: leads to this machine")]
