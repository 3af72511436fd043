"""People's accounts beside a deploy on this machine, and the rotation of the token of programs."""

from __future__ import annotations

import pytest

from tests.conftest import AddRow
from tests.deploy.checkout import Checkout
from tests.deploy.people import comes_and_goes, user
from tests.deploy.rotation import rotates_the_key, rotates_the_token

pytestmark = pytest.mark.e2e


def test_nobody_has_an_account_where_nothing_is_deployed(checkout: Checkout) -> None:
    """It says what to do, with exit code 1."""
    done = user(checkout, "list")
    assert (done.code, done.problems()) == (1, ["nothing is deployed to local yet: `nox -s deploy -- local` first"])


def test_an_account_comes_and_goes(deployed: Checkout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    assert deployed.untidy() == []


def test_the_service_token_rotates_in_one_deploy(deployed: Checkout) -> None:
    """The proof writes throughout; with the previous token left out, it does not."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []


def test_the_key_of_tokens_rotates_under_traffic(deployed: Checkout, add_row: AddRow) -> None:
    """Nobody is signed out, and no request fails; in one rollout instead of two, some do."""
    seen = rotates_the_key(deployed)
    calls, refreshes = seen.called.total(), seen.refreshed.total()
    add_row("rotation of JWT_SECRET_KEY", f"{deployed.environment}: {calls} calls, {refreshes} refreshes, 0 failed")
    assert deployed.untidy() == []
