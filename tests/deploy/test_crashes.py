"""`kill -9` of a deployed process while people use the service, and of all at once, as in a power cut."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import psutil
import pytest

from pipeline.targets.common.edge import HEALTH_FAILS, HEALTH_INTERVAL_SECONDS
from pipeline.targets.local.watchdog import PATIENCE_SECONDS
from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

HEALTH, READY, LIST = "/health", "/ready", f"{NOTES}?limit=1"
BACK_SECONDS = 30  # patience only: the tables show how long it took
NOTICED_SECONDS = HEALTH_FAILS * (HEALTH_INTERVAL_SECONDS + 1)  # including its timeout
TABLE = "kill -9 under traffic"


@pytest.fixture
def visitors(deployed: Checkout) -> Iterator[Visitors]:
    """Yield visitors who read health, readiness and the list, each about twenty times a second."""
    with Visitors(f"http://127.0.0.1:{deployed.port}", HEALTH, READY, LIST) as some:
        yield some


def _kill(checkout: Checkout, kind: str) -> tuple[float, psutil.Process]:
    """Kill one process of `kind`; return when (monotonic seconds), and which."""
    victim = checkout.kept(kind)[0]
    victim.kill()
    return time.monotonic(), victim


def _wait_back(checkout: Checkout, kind: str, dead: psutil.Process, count: int = 1) -> None:
    def back() -> bool:
        kept = checkout.kept(kind)
        return len(kept) == count and dead not in kept

    wait_until(back, f"{kind} did not come back", BACK_SECONDS)


def _replicas_that_answer(checkout: Checkout) -> set[str]:
    """Return the slots that the edge sends requests to."""
    answers = [checkout.request("GET", HEALTH, headers={"Slipway-Synthetic": "true"}) for _ in range(8)]
    return {answer.headers["slipway-replica"] for answer in answers if answer.status_code == 200}


def _redis(checkout: Checkout) -> str:
    return str(checkout.request("GET", READY).json()["checks"]["redis"]["state"])


def test_a_killed_replica_comes_back(deployed: Checkout, visitors: Visitors, add_row: AddRow) -> None:
    """The other one serves meanwhile: only what it was answering and the first who met its closed door notice."""
    killed, dead = _kill(deployed, "replica")
    _wait_back(deployed, "replica", dead, count=2)
    wait_until(lambda: len(_replicas_that_answer(deployed)) == 2, "the edge did not let it in again", BACK_SECONDS)
    seconds = time.monotonic() - killed
    hurt = [visit for visit in visitors.visits if visit.status != 200]
    assert all(visit.at - killed < NOTICED_SECONDS for visit in hurt), hurt
    # Until the edge knows, visits alternate: half meet the closed port, and some of the three were being answered.
    last = max((visit.at for visit in hurt), default=killed)
    met = [visit for visit in visitors.visits if killed < visit.at + visit.seconds and visit.at <= last]
    assert len(hurt) <= len(met) / 2 + 3, (hurt, met)
    add_row(TABLE, f"replica      back in {seconds:4.1f} s  {len(hurt)} of {len(visitors.visits)} visits failed")


def test_a_replica_that_hangs_is_started_again(deployed: Checkout, visitors: Visitors, add_row: AddRow) -> None:
    """SIGSTOP: it lives, keeps its connections and answers nothing. The edge takes it out, the watchdog ends it."""
    stopped, hanging = time.monotonic(), deployed.kept("replica")[0]
    hanging.suspend()
    wait_until(lambda: not hanging.is_running(), "nobody ended it", BACK_SECONDS + PATIENCE_SECONDS)
    _wait_back(deployed, "replica", hanging, count=2)
    wait_until(lambda: len(_replicas_that_answer(deployed)) == 2, "the edge did not let it in again", BACK_SECONDS)
    hurt = [visit for visit in visitors.visits if visit.status != 200]
    add_row(TABLE, f"replica that hangs  back in {time.monotonic() - stopped:4.1f} s  {len(hurt)} visits failed")


def test_a_killed_postgresql_comes_back(deployed: Checkout, visitors: Visitors, add_row: AddRow) -> None:
    """Without it /health is 200 and /ready 503 with the reason, both within a second or so; then all is well again."""
    written = deployed.write_note("before the crash")
    killed, dead = _kill(deployed, "postgres")
    visitors.wait_for(READY, 503, since=killed)
    _wait_back(deployed, "postgres", dead)
    visitors.wait_for(LIST, 200, times=5, since=killed, seconds=BACK_SECONDS)
    seconds = visitors.wait_for(READY, 200, times=5, since=killed, seconds=BACK_SECONDS)
    assert {visit.status for visit in visitors.of(HEALTH)} == {200}
    assert max(visit.seconds for visit in [*visitors.of(HEALTH), *visitors.of(READY)]) < 1.5
    refusals = [visit for visit in visitors.of(READY, since=killed) if visit.status != 200]
    assert {(visit.status, visit.release) for visit in refusals} == {(503, *deployed.answering())}
    checks = refusals[0].json()["checks"]
    assert checks["database"]["state"] in ("failed", "timeout")
    assert checks["database"]["detail"]
    errors = [visit for visit in visitors.of(LIST, since=killed) if visit.status != 200]
    assert {(visit.status, visit.content_type) for visit in errors} <= {(503, "application/problem+json")}, errors
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written
    add_row(TABLE, f"PostgreSQL   back in {seconds:4.1f} s  /health never failed, /ready 503 × {len(refusals)}")


def test_a_killed_valkey_comes_back_and_nobody_notices(deployed: Checkout, visitors: Visitors, add_row: AddRow) -> None:
    """Reads bypass the cache, writes go on, and /ready says degraded and 200."""
    killed, dead = _kill(deployed, "valkey")
    deployed.write_note("without a cache")
    _wait_back(deployed, "valkey", dead)
    wait_until(lambda: _redis(deployed) == "ok", "the service does not see it", BACK_SECONDS)
    assert {visit.status for visit in visitors.visits} == {200}
    seconds = time.monotonic() - killed
    add_row(TABLE, f"Valkey       back in {seconds:4.1f} s  0 of {len(visitors.visits)} visits failed")


def test_a_killed_edge_comes_back(deployed: Checkout, visitors: Visitors, add_row: AddRow) -> None:
    """It is the one door: connections are refused for a moment, and then every replica serves through it."""
    killed, dead = _kill(deployed, "edge")
    _wait_back(deployed, "edge", dead)
    seconds = visitors.wait_for(LIST, 200, times=5, since=killed, seconds=BACK_SECONDS)
    wait_until(lambda: len(_replicas_that_answer(deployed)) == 2, "the edge does not know both replicas", BACK_SECONDS)
    add_row(TABLE, f"Caddy        back in {seconds:4.1f} s")


def test_after_all_that_nothing_is_left_to_mend(deployed: Checkout) -> None:
    """Everything came back by itself, so a deploy of the same source has nothing to do."""
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "unchanged"), str(outcome)
    assert deployed.untidy() == []


def test_a_killed_supervisor_is_replaced_by_the_next_deploy(deployed: Checkout) -> None:
    """What it kept serves on without it; the next deploy starts a new one, and nothing runs twice."""
    written = deployed.write_note("before the supervisor died")
    supervisor = deployed.supervisor()
    assert supervisor is not None
    supervisor.kill()
    supervisor.wait(5)
    deployed.answering()
    deployed.change("after the supervisor died")
    healed = deployed.deploy()
    assert (healed.code, healed.verdict) == (0, "proved"), str(healed)
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written


@pytest.mark.parametrize("sockets", ["stale", "gone"])
def test_the_next_deploy_brings_everything_back_after_a_power_cut(sockets: str, deployed: Checkout) -> None:
    """All processes ended at once; pid files are there, sockets may be: it is proved, with the data."""
    written = deployed.write_note("before the power cut")
    _cut_the_power(deployed, sockets)
    healed = deployed.proved()
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    assert deployed.request("GET", f"{NOTES}/{written['id']}").json() == written


def test_a_power_cut_in_the_middle_of_a_deploy_is_no_worse(deployed: Checkout) -> None:
    """The next one is proved."""
    deployed.change("never finished")
    deploy = deployed.start("deploy")
    deploy.wait_for(lambda: len(list(deployed.home.glob("programs/replica-*.conf"))) == 3, "a third replica")
    deploy.process.kill()
    deploy.process.wait()
    _cut_the_power(deployed, "stale")
    deployed.proved()
    assert deployed.untidy() == []


def _cut_the_power(checkout: Checkout, sockets: str) -> None:
    victims = checkout.processes()
    supervisor = checkout.supervisor()
    for process in sorted(victims, key=lambda victim: victim != supervisor):  # first the one that restarts others
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    wait_until(lambda: not checkout.processes(), "not all ended")  # including a child that PostgreSQL had just started
    for path in checkout.home.glob("run/*") if sockets == "gone" else ():
        path.unlink()


def test_a_valkey_that_cannot_read_its_log_stops_no_deploy(sound: Checkout) -> None:
    """It is a cache: the service does without, the deploy says so and how to start it empty, and that helps."""
    for file in (sound.home / "valkey").rglob("*.incr.aof"):
        with file.open("ab") as log:
            log.write(b"rubbish")
    _, dead = _kill(sound, "valkey")
    dead.wait(5)
    sound.change("without a cache")
    outcome = sound.proved()
    assert "Nothing is cached until it runs. If its data is broken, start it empty: `rm -r " in outcome.stderr
    assert any("redis" in line for line in outcome.report["remarks"]), outcome.report["remarks"]
    shutil.rmtree(sound.home / "valkey")
    sound.change("with an empty one")
    assert "Nothing is cached" not in sound.proved().stderr
    wait_until(lambda: _redis(sound) == "ok", "the service does not see it", BACK_SECONDS)
