"""People's accounts on Kubernetes, where the deployer may enter no pod."""

from __future__ import annotations

import pytest

from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.people import comes_and_goes

pytestmark = pytest.mark.e2e


def test_an_account_comes_and_goes(deployed: KindCheckout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    held = "what held a hash is still there"  # Kubernetes removes it a moment after its Job
    wait_until(lambda: "accounts-" not in kubectl("get", "jobs,secrets", "--output=name"), held, 30)
    assert deployed.untidy() == []
