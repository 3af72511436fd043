"""A change of only the configuration, secrets included, is a rollout like any other."""

from __future__ import annotations

import os
import secrets

import pytest

from tests.deploy.checkout import Checkout
from tests.notes import NOTES

pytestmark = pytest.mark.e2e


def test_a_changed_setting_rolls(deployed: Checkout) -> None:
    """It makes another release of the same source, and the difference is said."""
    [before] = deployed.answering()
    deployed.set_env(LOG_LEVEL="WARNING")
    outcome = deployed.proved()
    assert outcome.release != before
    assert "LOG_LEVEL: INFO → WARNING" in outcome.stderr
    assert deployed.answering() == {outcome.release}


def test_another_shell_changes_nothing(deployed: Checkout) -> None:
    """PATH, HOME and the locale of whoever deploys are no part of a release: no replica is restarted for them."""
    before = deployed.status()["replicas"]
    path = f"/opt/elsewhere/bin:{os.environ['PATH']}"
    outcome = deployed.deploy(PATH=path, HOME=str(deployed.root), LANG="de_DE.UTF-8", TZ="Pacific/Auckland")
    assert (outcome.code, outcome.verdict) == (0, "unchanged"), str(outcome)
    assert deployed.status()["replicas"] == before


def test_another_port_moves_the_edge(deployed: Checkout) -> None:
    """Users find the service at the new address, and at the old one nobody listens."""
    from tests.deploy.machine import free_port

    release, before = deployed.answering(), deployed.port
    deployed.port = free_port()
    deployed.environ["EDGE_PORT"] = str(deployed.port)
    outcome = deployed.deploy()
    assert (outcome.code, outcome.report["url"]) == (0, f"http://localhost:{deployed.port}"), str(outcome)
    assert deployed.answering() == release
    assert str(before) not in (deployed.home / "edge.json").read_text()
    assert deployed.untidy() == []


def test_another_number_of_replicas_is_kept(deployed: Checkout) -> None:
    """Three instead of two, and back, without a failed request."""
    from tests.deploy.checkout import EVERYTHING

    release = deployed.answering()
    deployed.configure(replicas=3)
    deployed.proved()
    assert len(deployed.status()["replicas"]) == 3
    deployed.configure(replicas=EVERYTHING["replica"])
    deployed.proved()
    assert deployed.answering() == release
    assert deployed.untidy() == []


@pytest.mark.parametrize("name", ["SERVICE_TOKEN", "POSTGRES_PASSWORD"])
def test_a_rotated_secret_rolls_and_fails_no_request(name: str, deployed: Checkout) -> None:
    """Old replicas serve with the old one until new ones with the new one have taken over."""
    old, fresh = deployed.settings()[name], secrets.token_urlsafe(36)
    deployed.set_env(**{name: fresh})
    outcome = deployed.proved()
    assert old not in outcome.stderr + outcome.stdout
    assert fresh not in outcome.stderr + outcome.stdout
    assert deployed.write_note("after the rotation")["text"] == "after the rotation"
    assert deployed.deploy().verdict == "unchanged"
    assert deployed.untidy() == []
    if name == "SERVICE_TOKEN":
        with_the_old_one = {"Authorization": f"Bearer {old}"}
        assert deployed.request("POST", NOTES, headers=with_the_old_one, json={}).status_code == 401
