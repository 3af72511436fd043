"""Requests that take longer than the drain: a deploy waits for them, and the proof sees those that are cut."""

from __future__ import annotations

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import MakeCheckout
from tests.deploy.slow import SLOW, be_slow

pytestmark = pytest.mark.e2e

SECONDS = 20  # more than the replicas of the first versions had for it, and less than REQUEST_TIMEOUT_SECONDS


@pytest.fixture(name="slow", params=[False, True], ids=["late", "streamed"])
def _slow(request: pytest.FixtureRequest, make_checkout: MakeCheckout) -> Checkout:
    """A clone that declares a long request: its answer comes late, or in pieces from the first second on."""
    clone = make_checkout(rate=20)
    be_slow(clone, seconds=SECONDS, limit=30, streamed=request.param)
    return clone


def test_a_deploy_waits_for_them(slow: Checkout) -> None:
    """An update under traffic, in which dozens of them are in flight: none fails."""
    slow.proved()
    slow.change("a line")
    outcome = slow.proved()
    assert len(outcome.traffic["by_release"]) == 2


def test_one_that_a_deploy_cuts_counts_as_failed(slow: Checkout) -> None:
    """The negative control: a release that leaves without waiting is seen when it leaves."""
    slow.patch(
        "backend/server.py",
        "timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 1,",
        "timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds / 30),",
    )
    slow.proved()
    slow.change("a line")
    outcome = slow.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    examples = [one for kind in outcome.traffic["failures"].values() for one in kind["examples"]]
    assert {one["path"] for one in examples} == {SLOW}
