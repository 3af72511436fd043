"""People's accounts on Kubernetes, where the deployer may enter no pod, and the rotation of the token of programs."""

from __future__ import annotations

import pytest

from tests.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.people import comes_and_goes
from tests.deploy.rotation import rotates_the_key, rotates_the_token

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


def test_the_key_of_tokens_rotates_under_traffic(deployed: KindCheckout, add_row: AddRow) -> None:
    """Nobody is signed out, and no request fails; in one rollout instead of two, some do."""
    seen = rotates_the_key(deployed)
    calls, refreshes = seen.called.total(), seen.refreshed.total()
    add_row("rotation of JWT_SECRET_KEY", f"{deployed.environment}: {calls} calls, {refreshes} refreshes, 0 failed")
    assert deployed.untidy() == []
