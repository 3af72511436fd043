"""What is wrong with what runs under compose, as `doctor` says it."""

from __future__ import annotations

import pytest

from tests.containers import docker
from tests.deploy.ailing import tells_what_is_wrong
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.logged import shows_the_logs
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e


def test_says_what_is_wrong_with_the_data_stores(deployed: ComposeCheckout) -> None:
    """Asked where a replica runs: nothing is opened for it."""
    tells_what_is_wrong(deployed)
    assert deployed.untidy() == []


def test_says_that_a_container_was_started_again(deployed: ComposeCheckout) -> None:
    """It serves again, and somebody should know why it did not."""
    [redis] = deployed.containers("redis")
    docker("exec", redis, "sh", "-c", "kill 1", check=False)
    wait_until(
        lambda: deployed.inspect(redis)["State"].get("Health", {}).get("Status") == "healthy" or None, "healthy", 60
    )
    outcome = deployed.run("doctor", "--json")
    assert outcome.code == 1, str(outcome)
    assert [line for line in outcome.report["findings"] if line.startswith(f"{redis} ended and was started again 1 ")]


def test_shows_the_logs(deployed: ComposeCheckout) -> None:
    """Of each replica, as the engine keeps them."""
    shows_the_logs(deployed)
    assert deployed.untidy() == []
