"""People's accounts on Compose."""

from __future__ import annotations

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.people import comes_and_goes

pytestmark = pytest.mark.e2e


def test_an_account_comes_and_goes(deployed: ComposeCheckout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    assert deployed.untidy() == []
