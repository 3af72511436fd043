"""Rolling updates in a row under twice the shipped load, and their time against Kubernetes' own."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from pathlib import Path

import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e

ROLLOUTS = int(os.environ.get("SLIPWAY_E2E_ROLLOUTS", "20"))
EVIDENCE = os.environ.get("SLIPWAY_E2E_EVIDENCE")  # a folder for the last timeline.svg
RATE = 200
PLAIN, TIMES = 3, 1.5  # rollouts by Kubernetes alone; how much longer one of Slipway's may take
OWN_SECONDS = 5
WAITING = ("build", "migrate", "roll out", "prove")  # for Docker, the cluster, the bake; the rest is Slipway's own


def test_rollouts_in_a_row_fail_no_request(deployed: KindCheckout, add_row: AddRow) -> None:
    """Each is proved with writes at 200 requests a second; none fails, none is lost."""
    table = f"kind: {ROLLOUTS} rollouts at {RATE} requests a second"
    deployed.configure(rate=RATE)
    [before], sent, writes, took, own = deployed.answering(), 0, 0, [], []
    try:
        for number in range(1, ROLLOUTS + 1):
            deployed.change(f"rollout {number}")
            outcome = deployed.proved()
            traffic, name = outcome.traffic, outcome.release.removeprefix("sha256:")[:12]
            assert set(traffic["by_release"]) == {before, outcome.release}
            before, sent = outcome.release, sent + traffic["sent"]
            writes += traffic["writes_acknowledged"]
            seconds = {stage["name"]: stage["seconds"] for stage in outcome.report["stages"]}
            took.append(seconds["roll out"])
            own.append(outcome.seconds - sum(seconds[name] for name in WAITING))
            counts = f"{traffic['sent']:5} sent  {traffic['failed']} failed  {traffic['writes_acknowledged']:4} writes"
            p95 = f"{traffic['writes_lost']} lost  p95 {traffic['latency_ms']['p95']:5.1f} ms"
            whole = f"roll out {seconds['roll out']:4.1f} s of {outcome.seconds:4.1f} s"
            add_row(table, f"{number:2}  {counts}  {p95}  {whole}  → {name}")
    finally:
        deployed.configure(rate=100)
    assert deployed.untidy() == []
    if EVIDENCE:
        shutil.copytree(deployed.newest_record(), Path(EVIDENCE) / "kind", dirs_exist_ok=True)
    mine, plain = statistics.median(took), statistics.median(_plain() for _ in range(PLAIN))
    facts = f"{sent} sent, 0 failed, {writes} writes acknowledged, 0 lost"
    add_row(table, f"all: {facts}; outside of waiting {statistics.median(own):.1f} s")
    against = f"kubectl rollout restart, to the last old pod's end, {plain:.1f} s: {mine / plain:.2f} times that"
    add_row(table, f"roll out {mine:.1f} s; {against}")
    assert statistics.median(own) < OWN_SECONDS
    assert mine <= TIMES * plain


def _plain() -> float:
    """The seconds that Kubernetes takes by itself for the same Deployment, until the last old pod has drained."""
    old = kubectl("get", "pods", "--selector=app.kubernetes.io/component=backend", "--output=name").split()
    started = time.monotonic()
    kubectl("rollout", "restart", "deployment/backend")
    kubectl("rollout", "status", "deployment/backend", "--timeout=180s")
    wait_until(lambda: not kubectl("get", *old, "--ignore-not-found", "--output=name") or None, "old pods stay", 60)
    return time.monotonic() - started
