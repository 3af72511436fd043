"""People's accounts on Kubernetes, where the deployer may enter no pod, and the rotation of the token of programs."""

from __future__ import annotations

import pytest

from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.people import comes_and_goes
from tests.deploy.rotation import rotates_the_token

pytestmark = pytest.mark.e2e


def test_an_account_comes_and_goes(deployed: KindCheckout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    held = "what held a hash is still there"  # Kubernetes removes it a moment after its Job
    wait_until(lambda: "accounts-" not in kubectl("get", "jobs,secrets", "--output=name"), held, 30)
    assert deployed.untidy() == []


def test_the_service_token_rotates_in_one_deploy(deployed: KindCheckout) -> None:
    """The proof writes throughout; with the previous token left out, it does not."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []
