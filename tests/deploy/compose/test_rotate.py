"""`nox -s rotate` on Compose: each secret under traffic, and killed at the steps that touch a store or roll."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import AddRow
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.leaks import planted
from tests.deploy.rotating import (
    finish,
    is_killed,
    rotate,
    rotates_redis,
    rotates_the_key,
    rotates_the_login,
    rotates_the_token,
    skips_a_rollout_of_the_key,
    skips_the_old_token,
)
from tests.deploy.vaults import of_sops, starts_and_rotates

pytestmark = pytest.mark.e2e

SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", "SERVICE_TOKEN")


@pytest.fixture(name="deployed")
def _alone(deployed: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """The module's clone; a rotation that one test left unfinished is in nobody else's way."""
    yield deployed
    (deployed.home / "rotation.json").unlink(missing_ok=True)


def since(one: ComposeCheckout, store: str) -> str:
    """Return when a store was started."""
    [name] = one.containers(store)
    return str(one.inspect(name)["State"]["StartedAt"])


def refused(one: ComposeCheckout) -> str:
    """Return how many sign-ins Redis has refused since it was started."""
    [redis] = one.containers("redis")
    command = ["docker", "exec", "--env", "REDISCLI_AUTH", redis, "redis-cli", "--no-auth-warning", "info", "stats"]
    environ = {**os.environ, "REDISCLI_AUTH": one.settings()["REDIS_PASSWORD"]}
    said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=30).stdout
    return next(line for line in said.splitlines() if line.startswith("acl_access_denied_auth:"))


def pings(one: ComposeCheckout, password: str) -> str:
    """Return what Redis answers to a password, which no list of processes shows."""
    [redis] = one.containers("redis")
    command = ["docker", "exec", "--env", "REDISCLI_AUTH", redis, "redis-cli", "--no-auth-warning", "ping"]
    environ = {**os.environ, "REDISCLI_AUTH": password}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip()


def kept_by_docker(one: ComposeCheckout) -> dict[str, str]:
    """Return what Docker shows of containers and images, and what the containers logged."""
    names, images = one.containers(), set[str]()
    texts = {f"log of {name}": docker("logs", name) for name in names}
    for name in names:
        texts[f"container {name}"] = docker("inspect", name)
        images.add(str(one.inspect(name)["Image"]))
    for image in images:
        texts[f"image {image}"] = docker("image", "inspect", image) + docker("history", "--no-trunc", image)
    return texts


def test_the_database_password_rotates(deployed: ComposeCheckout) -> None:
    """By two logins; PostgreSQL is not restarted for it."""
    before = since(deployed, "postgres")
    rotates_the_login(deployed)
    assert since(deployed, "postgres") == before
    assert deployed.untidy() == []


def test_the_password_of_redis_rotates(deployed: ComposeCheckout) -> None:
    """It accepts both for as long as replicas have both, and is not restarted; twice, as it reads its file once."""
    before = since(deployed, "redis")
    for _ in range(2):
        old, refusals = deployed.settings()["REDIS_PASSWORD"], refused(deployed)
        rotates_redis(deployed)
        assert refused(deployed) == refusals
        assert (pings(deployed, old)[:9], pings(deployed, deployed.settings()["REDIS_PASSWORD"])) == (
            "NOAUTH Au",
            "PONG",
        )
    assert since(deployed, "redis") == before
    [redis] = deployed.containers("redis")
    docker("restart", redis)
    assert pings(deployed, deployed.settings()["REDIS_PASSWORD"]) == "PONG"
    assert deployed.untidy() == []


def test_the_token_of_programs_rotates(deployed: ComposeCheckout) -> None:
    """Whoever has the old one is served until the new one is everywhere."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []


def test_the_key_of_sessions_rotates(deployed: ComposeCheckout, add_row: AddRow) -> None:
    """In three rollouts, and nobody is signed out."""
    add_row("rotation of JWT_SECRET_KEY", rotates_the_key(deployed, deployed.set_env))
    assert deployed.untidy() == []


def test_without_the_rollout_of_both_keys_people_are_refused(deployed: ComposeCheckout) -> None:
    """The control of the test above: by replicas that do not know the new key yet."""
    skips_a_rollout_of_the_key(deployed)
    assert deployed.untidy() == []


def test_without_the_old_token_beside_it_programs_are_refused(deployed: ComposeCheckout) -> None:
    """The control of the test of the token: the proof writes nothing while its rollout lasts."""
    skips_the_old_token(deployed)
    assert deployed.untidy() == []


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "REDIS_PASSWORD"])
@pytest.mark.parametrize("stage", ["written", "migrate", "roll out"])
def test_goes_on_after_kill_9(deployed: ComposeCheckout, name: str, stage: str) -> None:
    """Where the store is touched, and where replicas are exchanged: no request fails, and the secret is another one."""
    old = deployed.settings()[name]
    is_killed(
        deployed,
        name,
        lambda run: deployed.settings()[name] != old if stage == "written" else run.stage() == stage,
        stage,
    )
    assert deployed.answering() != set()
    finish(deployed, name)
    assert deployed.settings()[name] != old
    assert deployed.request("GET", "/ready").json()["checks"]["redis"]["state"] == "ok"
    assert deployed.write_note("after it was killed")["text"] == "after it was killed"
    assert deployed.untidy() == []


def test_the_password_of_the_superuser_changes(deployed: ComposeCheckout) -> None:
    """Also where it was killed when PostgreSQL had it, and its file had not: the old one lets nobody in."""
    path = deployed.root / ".slipway/compose/secrets/POSTGRES_SUPERUSER_PASSWORD"
    old = path.read_text()
    rotate(deployed, "POSTGRES_SUPERUSER_PASSWORD")
    new = path.read_text()
    assert new != old
    assert deployed.sql("SELECT 1") == "1"  # by the file that the container mounted
    path.chmod(0o644)
    path.write_text(old)
    path.with_name(".POSTGRES_SUPERUSER_PASSWORD.new").write_text(new)
    rotate(deployed, "POSTGRES_SUPERUSER_PASSWORD")
    assert path.read_text() == new
    assert path.stat().st_mode & 0o777 == 0o444
    assert deployed.sql("SELECT 1") == "1"
    assert deployed.untidy() == []


def test_a_file_of_sops_gives_the_secrets_and_takes_the_new_ones(checkout: ComposeCheckout) -> None:
    """The service is started from it; the login that the database's password goes with is kept there, too."""
    starts_and_rotates(checkout, of_sops, "POSTGRES_PASSWORD")


def test_docker_shows_no_secret(deployed: ComposeCheckout) -> None:
    """Neither of a container, nor of an image, nor in a log; and what is planted in an image is found."""
    values = [deployed.settings()[name] for name in SECRETS]
    assert planted(values, kept_by_docker(deployed)) == []
    [backend, *_] = deployed.containers("backend")
    image = str(deployed.inspect(backend)["Image"])
    name = docker("run", "--detach", "--env", f"PLANTED={values[0]}", "--entrypoint", "true", image)
    try:
        docker("commit", name, f"{deployed.project}-planted")
        text = docker("image", "inspect", f"{deployed.project}-planted")
        assert planted(values, {"the image": text}) == ["the image"]
    finally:
        docker("rm", "--force", name)
        docker("rmi", "--force", f"{deployed.project}-planted")
