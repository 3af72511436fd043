"""A change reaches its users and nobody notices; but if a request does fail, the proof notices."""

from __future__ import annotations

import os

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow, MakeCheckout

pytestmark = pytest.mark.e2e

ROLLOUTS = int(os.environ.get("SLIPWAY_E2E_ROLLOUTS", "10"))


def test_rolling_updates_fail_no_request(deployed: Checkout, add_row: AddRow) -> None:
    """One changed line after the other: each is proved, both releases answered, no write is lost."""
    [before] = deployed.answering()
    for number in range(1, ROLLOUTS + 2):
        deployed.change(f"change {number}")
        outcome = deployed.proved()
        traffic = outcome.traffic
        assert set(traffic["by_release"]) == {before, outcome.release}
        assert traffic["sent"] == traffic["ok"] == sum(one["sent"] for one in traffic["by_release"].values())
        assert traffic["writes_acknowledged"] > 0
        assert traffic["failures"] == {}
        assert (outcome.report["previous"], outcome.report["dirty"]) == (before, True)
        assert deployed.answering() == {outcome.release}
        counts = f"{traffic['sent']:4} sent  {traffic['failed']} failed  p95 {traffic['latency_ms']['p95']:5.1f} ms"
        add_row("rollouts", f"{number:2}  {outcome.seconds:5.1f} s  {counts}  {before} → {outcome.release}")
        before = outcome.release
    assert deployed.untidy() == []


@pytest.mark.gate
def test_without_draining_the_proof_fails(make_checkout: MakeCheckout) -> None:
    """The negative control: replicas that leave at once drop requests, and the detector detects it."""
    checkout = make_checkout(rate=100)
    checkout.environ["DRAIN_SECONDS"] = "0"
    first = checkout.proved()
    checkout.change("a line")
    outcome = checkout.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.traffic["failed"] > 0
    assert "requests failed" in outcome.reason
    examples = [example for kind in outcome.traffic["failures"].values() for example in kind["examples"]]
    assert {"kind", "at", "request", "request_id", "path"} <= set(examples[0])
    assert checkout.answering() == {first.release}
