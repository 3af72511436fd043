"""docs/12-recipes.md on Compose: a secret is in the container, or the plan says that it would not be."""

from __future__ import annotations

import pytest

from pipeline.config.settings import needed_secrets
from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.recipes import follow

pytestmark = pytest.mark.e2e

TOKEN = "a-token-that-the-monitor-knows"


def test_a_secret_reaches_the_containers_or_is_refused(checkout: ComposeCheckout) -> None:
    """It was proved without its secret once: nobody had run `nox -s settings -- --write`."""
    follow(checkout.root, "A secret")
    checkout.set_env(PULSE_TOKEN=TOKEN)
    refused = checkout.deploy()
    assert refused.code == 2, str(refused)
    what = "PULSE_TOKEN: this secret does not reach the service: `nox -s settings -- --write`"
    assert refused.problems() == [f"docker-compose.yml: {what}"]
    assert checkout.containers() == []

    assert checkout.run("settings", "--write").code == 0
    checkout.proved()
    for replica in checkout.containers("backend"):
        assert docker("exec", replica, "cat", "/run/secrets/PULSE_TOKEN").strip() == TOKEN
        labels = checkout.inspect(replica)["Config"]["Labels"]
        assert labels["slipway.needs"].split() == [*needed_secrets(), "PULSE_TOKEN"]
