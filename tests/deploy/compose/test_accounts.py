"""People's accounts on Compose, and the rotation of the token of programs."""

from __future__ import annotations

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.people import comes_and_goes
from tests.deploy.rotation import rotates_the_token

pytestmark = pytest.mark.e2e


def test_an_account_comes_and_goes(deployed: ComposeCheckout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    assert deployed.untidy() == []


def test_the_service_token_rotates_in_one_deploy(deployed: ComposeCheckout) -> None:
    """The proof writes throughout; with the previous token left out, it does not."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []
