"""People's accounts beside a deploy on this machine, and what a rotation without its steps costs them."""

from __future__ import annotations

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.people import comes_and_goes, user
from tests.deploy.rotating import skips_a_rollout_of_the_key, skips_the_old_token

pytestmark = pytest.mark.e2e


def test_nobody_has_an_account_where_nothing_is_deployed(checkout: Checkout) -> None:
    """It says what to do, with exit code 1."""
    done = user(checkout, "list")
    assert (done.code, done.problems()) == (1, ["nothing is deployed to local yet: `nox -s deploy -- local` first"])


def test_an_account_comes_and_goes(deployed: Checkout) -> None:
    """By name and password, through the edge."""
    comes_and_goes(deployed)
    assert deployed.untidy() == []


def test_a_token_without_the_one_before_is_refused(deployed: Checkout) -> None:
    """While its rollout lasts, the proof writes nothing; afterwards, whoever has the old one is refused."""
    skips_the_old_token(deployed)
    assert deployed.untidy() == []


def test_a_key_in_one_rollout_is_refused(deployed: Checkout) -> None:
    """By replicas that do not know it yet; a session lives on, as its refresh token does not depend on the key."""
    skips_a_rollout_of_the_key(deployed)
    assert deployed.untidy() == []
