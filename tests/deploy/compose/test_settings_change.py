"""A change of the configuration alone is a rollout like any other: secrets, limits, replicas, the port."""

from __future__ import annotations

import secrets

import httpx2
import pytest

from tests.deploy.compose.stack import SERVICES, ComposeCheckout
from tests.deploy.machine import free_port, wait_until

pytestmark = pytest.mark.e2e


def test_a_rotated_password_of_redis_fails_no_request(deployed: ComposeCheckout) -> None:
    """Redis starts anew with it; old replicas do without a cache until new ones have taken over."""
    fresh = secrets.token_urlsafe(36)
    deployed.set_env(REDIS_PASSWORD=fresh)
    outcome = deployed.proved()
    assert fresh not in outcome.stderr + outcome.stdout
    # Until then a check may be late, on a busy machine: a replica gives Redis 0.2 s.
    wait_until(lambda: deployed.request("GET", "/ready").json()["checks"]["redis"]["state"] == "ok", "no Redis")
    assert deployed.deploy().verdict == "unchanged"
    assert deployed.untidy() == []


def test_a_changed_limit_in_the_compose_file_rolls(deployed: ComposeCheckout) -> None:
    """The release is the same, its containers are not: what is written is what runs."""
    before, release = deployed.containers("backend"), deployed.answering()
    deployed.patch("docker-compose.yml", "memory: 384M", "memory: 400M")
    deployed.proved()
    assert deployed.answering() == release
    assert not set(before) & set(deployed.containers("backend"))
    limits = {deployed.inspect(name)["HostConfig"]["Memory"] for name in deployed.containers("backend")}
    assert limits == {400 * 2**20}
    assert deployed.deploy().verdict == "unchanged"


def test_a_changed_store_is_made_anew_with_its_data(deployed: ComposeCheckout) -> None:
    """PostgreSQL is restarted once, before the baseline; nothing that was written is lost."""
    written = deployed.report_release("before the larger store")
    deployed.patch("docker-compose.yml", "shared_buffers=128MB", "shared_buffers=160MB")
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert deployed.sql("SHOW shared_buffers") == "160MB"
    assert deployed.request("GET", f"/api/v1/releases/{written['id']}").json() == written
    assert deployed.untidy() == []


def test_another_number_of_replicas_fails_no_request(deployed: ComposeCheckout) -> None:
    """Three instead of two, and back; the edge has slots to spare and stays what it is."""
    release, [edge] = deployed.answering(), deployed.containers("frontend")
    since = deployed.inspect(edge)["State"]["StartedAt"]
    deployed.configure(replicas=3)
    deployed.proved()
    assert len(deployed.containers("backend")) == 3
    deployed.configure(replicas=SERVICES["backend"])
    deployed.proved()
    assert deployed.answering() == release
    assert deployed.inspect(edge)["State"]["StartedAt"] == since
    assert deployed.untidy() == []


def test_another_port_moves_the_edge(deployed: ComposeCheckout) -> None:
    """Users find the service at the new address, and at the old one nobody listens."""
    release, before = deployed.answering(), deployed.port
    deployed.port = free_port()
    deployed.environ["EDGE_PORT"] = str(deployed.port)
    outcome = deployed.deploy()
    assert (outcome.code, outcome.report["url"]) == (0, f"http://localhost:{deployed.port}"), str(outcome)
    assert deployed.answering() == release
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://localhost:{before}/health")
    assert deployed.untidy() == []
