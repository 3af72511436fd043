"""A quiet time calls nobody, however often a release is replaced; afterwards each panel has something to show.

Half an hour of it: `SLIPWAY_TEST_QUIET_MINUTES=30 nox -s e2e -- tests/deploy/compose/test_quiet.py -k nobody`.
"""

from __future__ import annotations

import json
import os
import time

import pytest

from pipeline.monitoring.dashboards import dashboard_files, expressions
from tests.deploy.compose.stack import SERVICES, ComposeCheckout
from tests.deploy.compose.watching import alerts, eventually, firing, query, series
from tests.deploy.conftest import AddRow
from tests.deploy.visitors import Callers
from tests.project import PROJECT

pytestmark = pytest.mark.e2e

TABLE = "Compose: a quiet time"
MINUTES = float(os.environ.get("SLIPWAY_TEST_QUIET_MINUTES", "6"))
RATE = 5  # requests a second of users
UPDATES, FEWER_SECONDS = 10, 15


def test_nobody_is_called(watched: ComposeCheckout, add_row: AddRow) -> None:
    """Users all the while, a deploy after a third of the time, a backup after two."""
    eventually(lambda: not firing(watched), "something fires already", 300)
    began, ended = time.time(), time.time() + 60 * MINUTES
    with Callers(f"http://localhost:{watched.port}", watched.asked, rate=RATE) as callers:
        time.sleep(20 * MINUTES)
        watched.change("a quiet time")
        watched.proved()
        time.sleep(max(0, ended - 20 * MINUTES - time.time()))
        done = watched.run("backup", "--json")
        assert done.code == 0, str(done)
        time.sleep(max(0, ended - time.time()))
    fired = alerts(watched, began)
    sent = len(callers.seconds)
    add_row(TABLE, f"{(time.time() - began) / 60:.0f} min, {sent} requests, {len(callers.failed)} failed; "
            f"fired beside the Watchdog: {', '.join(fired) or 'nothing'}")  # fmt: skip
    assert fired == {}
    assert callers.failed == []
    assert sent > 0.9 * RATE * 60 * MINUTES


def test_each_panel_has_data(watched: ComposeCheckout, add_row: AddRow) -> None:
    """After traffic, deploys, a backup and a drill; claims are Kubernetes'."""
    asked = {
        f"{path.stem}: {panel['title']}": expressions(panel)
        for path in dashboard_files(PROJECT.root)
        for panel in json.loads(path.read_text("utf-8"))["panels"]
    }
    empty = {each for panel in asked.values() for each in panel if "kubelet_" not in each}

    def left() -> bool:
        empty.difference_update([each for each in empty if query(watched, each)])
        return bool(empty)

    eventually(lambda: not left(), f"these have no data: {empty}", 400)  # the budget is computed every 5 minutes
    for name, panel in asked.items():
        for expression in panel:
            values = sorted(float(one["value"][1]) for one in query(watched, expression))
            shown = f"{values[0]:.4g} to {values[-1]:.4g} in {len(values)} series" if values else "nothing"
            add_row("Compose: panels and what they show", f"{name:45} {shown}")


def test_ten_updates_in_a_row(watched: ComposeCheckout, add_row: AddRow) -> None:
    """None fails a request, calls anybody, or leaves fewer targets than replicas for long."""
    began = time.time()
    for number in range(UPDATES):
        watched.change(f"update {number}")
        watched.proved()
    ended = time.time()
    fired, fewer = alerts(watched, began), longest_with_fewer(watched, began, ended)
    add_row(TABLE, f"{UPDATES} updates in {ended - began:.0f} s, 0 requests failed; fewer targets than replicas for "
            f"{fewer} s at most; fired: {', '.join(fired) or 'nothing'}")  # fmt: skip
    assert fired == {}
    assert fewer < FEWER_SECONDS


def longest_with_fewer(one: ComposeCheckout, began: float, ended: float) -> int:
    """Return the longest time, in seconds, in which Prometheus had fewer targets up than there are replicas."""
    [found] = series(one, 'count(up{job="backend"} == 1)', began, ended)
    up = {round(float(at)): int(value) for at, value in found["values"]}
    longest = length = 0
    for second in range(round(began) + 1, round(ended)):
        length = 0 if up.get(second, 0) >= SERVICES["backend"] else length + 1
        longest = max(longest, length)
    return longest
