"""`nox -s rotate` on Kubernetes, as the deployer: each secret under traffic, and killed where a login changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.leaks import planted
from tests.deploy.machine import wait_until
from tests.deploy.rotating import (
    finish,
    is_killed,
    rotate,
    rotates_the_key,
    rotates_the_login,
    rotates_the_token,
    skips_a_rollout_of_the_key,
    skips_the_old_token,
)

pytestmark = pytest.mark.e2e

SECRETS = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", "SERVICE_TOKEN")


@pytest.fixture(name="deployed")
def _alone(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The module's clone; a rotation that one test left unfinished is in nobody else's way."""
    yield deployed
    (deployed.home / "rotation.json").unlink(missing_ok=True)


def test_the_database_password_rotates(deployed: KindCheckout) -> None:
    """By two logins, which a Job changes; PostgreSQL is not restarted for it."""
    before = [pod["metadata"]["uid"] for pod in deployed.pods("postgres")]
    rotates_the_login(deployed)
    assert [pod["metadata"]["uid"] for pod in deployed.pods("postgres")] == before
    wait_until(lambda: "rotate-" not in kubectl("get", "jobs,secrets", "--output=name"), "a Job is still there", 60)
    assert deployed.untidy() == []


def test_the_password_of_redis_rotates(deployed: KindCheckout) -> None:
    """Redis is started anew with it, and pods of before do without their cache: no request fails."""
    old = deployed.settings()["REDIS_PASSWORD"]
    rotate(deployed, "REDIS_PASSWORD")
    assert deployed.settings()["REDIS_PASSWORD"] != old
    assert deployed.request("GET", "/ready").json()["checks"]["redis"]["state"] == "ok"
    assert deployed.untidy() == []


def test_the_token_of_programs_rotates(deployed: KindCheckout) -> None:
    """Whoever has the old one is served until the new one is everywhere."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []


def test_the_key_of_sessions_rotates(deployed: KindCheckout, add_row: AddRow) -> None:
    """In three rollouts, and nobody is signed out."""
    add_row("rotation of JWT_SECRET_KEY", rotates_the_key(deployed, deployed.settle))
    assert deployed.untidy() == []


def test_without_the_rollout_of_both_keys_people_are_refused(deployed: KindCheckout) -> None:
    """The control of the test above: by replicas that do not know the new key yet."""
    skips_a_rollout_of_the_key(deployed)
    assert deployed.untidy() == []


def test_without_the_old_token_beside_it_programs_are_refused(deployed: KindCheckout) -> None:
    """The control of the test of the token: the proof writes nothing while its rollout lasts."""
    skips_the_old_token(deployed)
    assert deployed.untidy() == []


@pytest.mark.parametrize("stage", ["written", "roll out"])
def test_goes_on_after_kill_9(deployed: KindCheckout, stage: str) -> None:
    """Where a login of the database is changed, and where pods are exchanged."""
    old = deployed.settings()["POSTGRES_PASSWORD"]
    is_killed(
        deployed,
        "POSTGRES_PASSWORD",
        lambda run: deployed.settings()["POSTGRES_PASSWORD"] != old if stage == "written" else run.stage() == stage,
        stage,
    )
    finish(deployed, "POSTGRES_PASSWORD")
    assert deployed.settings()["POSTGRES_PASSWORD"] != old
    assert deployed.write_note("after it was killed")["text"] == "after it was killed"
    assert deployed.untidy() == []


def test_no_object_but_the_secret_shows_one(deployed: KindCheckout) -> None:
    """Nor the log of a pod."""
    values = [deployed.settings()[name] for name in SECRETS]
    kinds = "configmaps,deployments,statefulsets,pods,jobs,replicasets,events"
    texts = {kinds: kubectl("get", kinds, "--output=json")}
    for pod in deployed.pods("backend"):
        name = pod["metadata"]["name"]
        texts[name] = kubectl("logs", name)
    assert planted(values, texts) == []
