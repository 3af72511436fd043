"""Load makes replicas, and its end takes them away again; nobody notices either."""

from __future__ import annotations

import time
from collections import Counter

import httpx2
import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visit, Visitors
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

TABLE = "kind: autoscaling"
LIST = f"{NOTES}?limit=5"
CROWD = 4


class Crowd(Visitors):
    """Visitors of LIST who keep their connection and make no pause: all that one process can.

    They have the token: without it, one address may not ask so much.
    """

    def __init__(self, base: str, token: str) -> None:
        super().__init__(base, *[LIST] * CROWD)
        self._headers = {**self._headers, "Authorization": f"Bearer {token}"}

    @property
    def statuses(self) -> list[int]:
        """What they were answered; 0 for no answer."""
        return [visit.status for visit in self.visits]

    def _ask(self, path: str) -> None:
        with httpx2.Client(timeout=10, headers=self._headers) as client:
            while not self._over.is_set():
                at = time.monotonic()
                try:
                    status = client.get(self._base + path).status_code
                except httpx2.TransportError:
                    status = 0
                self.visits.append(Visit(path, at, time.monotonic() - at, status, "", b"", None))


def _hpa() -> str:
    return kubectl("describe", "hpa", "backend")


def test_scales_up_under_load_and_down_again(deployed: KindCheckout, add_row: AddRow) -> None:
    """The HorizontalPodAutoscaler moves; each request is answered, also by a replica that is on its way out."""
    base = deployed.url
    wait_until(lambda: len(deployed.pods()) == 2 or None, "two replicas at rest", 180)
    with Visitors(base, LIST) as one:
        started = time.monotonic()
        with Crowd(base, deployed.settings()["SERVICE_TOKEN"]) as crowd:
            wait_until(lambda: len(deployed.pods()) >= 3 or None, "no third replica", 180)
            up = time.monotonic() - started
            kubectl("rollout", "status", "deployment/backend", "--timeout=120s")
        ended = time.monotonic()
        wait_until(lambda: len(deployed.pods()) == 2 or None, "still more than two replicas", 240)
        down = time.monotonic() - ended
    statuses = [*crowd.statuses, *(visit.status for visit in one.visits)]
    assert set(statuses) == {200}, (Counter(statuses), _hpa())
    add_row(TABLE, f"up after {up:.0f} s of load, down {down:.0f} s after its end; {len(statuses)} requests, 0 failed")


def test_a_deploy_while_it_scales_is_proved(deployed: KindCheckout, add_row: AddRow) -> None:
    """Replicas come and go with the load while releases change: the rollout keeps what the autoscaler wants."""
    base = deployed.url
    deployed.change("scaled in mid-roll")
    with Crowd(base, deployed.settings()["SERVICE_TOKEN"]) as crowd:
        wait_until(lambda: len(deployed.pods()) >= 3 or None, "no third replica", 180)  # from here on it goes up
        outcome = deployed.deploy()
        scaled = len(deployed.pods())
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert outcome.traffic["failed"] == 0
    assert set(crowd.statuses) == {200}, Counter(crowd.statuses)
    assert scaled > 2, _hpa()
    deployed.commit()
    add_row(TABLE, f"deploy under load: proved with {scaled} replicas; {len(crowd.statuses)} requests more, 0 failed")
