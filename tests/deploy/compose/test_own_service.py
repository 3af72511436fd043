"""What the team ships, whatever it is, in containers: see tests/deploy/own.py."""

from __future__ import annotations

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.own import ships_updates_and_is_undone

pytestmark = [pytest.mark.e2e, pytest.mark.gate, pytest.mark.own]


def test_the_service_ships_updates_and_is_undone(own: ComposeCheckout) -> None:
    """From nothing to a proved release, to the next one without a failed request, and back from a broken one."""
    ships_updates_and_is_undone(own)
