"""Load makes replicas, and its end takes them away again; nobody notices either."""

from __future__ import annotations

import time

import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors

pytestmark = pytest.mark.e2e

LIST = "/api/v1/releases?limit=5"
CROWD = 8


def test_scales_up_under_load_and_down_again(deployed: KindCheckout, add_row: AddRow) -> None:
    """The HorizontalPodAutoscaler moves; each request is answered, also by a replica that is on its way out."""
    base = f"http://localhost:{deployed.port}"
    wait_until(lambda: len(deployed.pods()) == 2 or None, "two replicas at rest", 180)
    with Visitors(base, LIST) as one:
        started = time.monotonic()
        with Visitors(base, *[LIST] * CROWD) as crowd:
            wait_until(lambda: len(deployed.pods()) >= 3 or None, kubectl("describe", "hpa", "backend"), 180)
            up = time.monotonic() - started
            kubectl("rollout", "status", "deployment/backend", "--timeout=120s")
        ended = time.monotonic()
        wait_until(lambda: len(deployed.pods()) == 2 or None, kubectl("describe", "hpa", "backend"), 240)
        down = time.monotonic() - ended
    visits = [*one.visits, *crowd.visits]
    assert {visit.status for visit in visits} == {200}, [visit for visit in visits if visit.status != 200][:3]
    add_row(
        "kind: autoscaling",
        f"up after {up:.0f} s of load, down {down:.0f} s after its end; {len(visits)} visits, 0 failed",
    )
