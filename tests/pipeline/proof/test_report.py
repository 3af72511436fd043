"""The report of a deploy as a value, and the document that programs read."""

from __future__ import annotations

import json
from dataclasses import replace

from pipeline.proof.report import Mark, Report, Rollback, TrafficReport, traffic_report
from pipeline.proof.results import Bin, Failure, Latency, Phase, Share, TrafficResult
from pipeline.system.progress import StageRecord

NEW, OLD = "3f2a9c0b11d2", "77c0de4410aa"
LATENCY = Latency(4.0, 9.0, 12.0, 20.0)


def failure(kind: str, release: str | None, at: str, detail: str = "500 {}") -> Failure:
    """Return an example of a failure."""
    return Failure(
        kind=kind,
        at=at,
        phase="bake",
        request="list",
        method="GET",
        path="/api/v1/releases?limit=5",
        request_id="0123456789abcdef",
        release=release,
        status=500,
        detail=detail,
    )


TRAFFIC = TrafficResult(
    seconds=12.0,
    phase="bake",
    outstanding=0,
    started=1_800_000_000.0,
    shares=(
        Share("baseline", OLD, 90, {"5xx": 10}, 0, LATENCY),
        Share("rollout", OLD, 50, {}, 0, LATENCY),
        Share("rollout", None, 0, {"reset": 2}, 0, None),
        Share("bake", NEW, 100, {}, 3, LATENCY),
    ),
    failures=(
        failure("5xx", OLD, "2027-01-15T08:00:01.000+00:00"),
        failure("slow", NEW, "2027-01-15T08:00:09.000+00:00"),
    ),
    by_release={OLD: LATENCY, NEW: LATENCY},
    latency=LATENCY,
    writes_acknowledged=30,
    lag_ms=2.5,
    cpu_seconds=1.5,
    bins=(Bin(1_800_000_000.0, 0.5, {OLD: 25}, 0, 4.0, 9.0),),
    phases=(Phase("baseline", 1_800_000_000.0),),
)


def measured(result: TrafficResult, *, slow: bool = False) -> TrafficReport:
    """Return what a report says about `result`."""
    report = traffic_report(result, NEW, slow=slow)
    assert report is not None
    return report


FACTS = Report(
    environment="local",
    target="local",
    url="http://localhost:8080",
    number=12,
    release=NEW,
    previous=OLD,
    commit="abc1234",
    dirty=True,
    verdict="proved",
    reason=None,
    started="2027-01-15T08:00:00+00:00",
    finished="2027-01-15T08:00:20+00:00",
    seconds=21.5,
    stages=(StageRecord("build", 1_799_999_999.0, 1.25, "ok", f"release {NEW}"),),
    traffic=measured(TRAFFIC),
    events=(Mark(1_800_000_000.2, "replica 1 of 2 in"),),
)
UNDONE = replace(
    FACTS,
    verdict="rolled_back",
    reason="12 of 840 requests failed: 12 × 5xx",
    rollback=Rollback(
        release=OLD, verdict="proved", reason=None, stages=(StageRecord("roll back", 1_800_000_001.0, 2.0, "ok"),)
    ),
)
MOVED = replace(FACTS, remarks=("the autoscaler backend went from 2 to 3 replicas",))
UNCHANGED = replace(FACTS, verdict="unchanged", traffic=None)
NO_BUILD = replace(FACTS, verdict="failed", reason="no space left", release=None, traffic=None)
INTERRUPTED = replace(FACTS, verdict="interrupted", previous=None, traffic=None)
STUCK = replace(
    FACTS,
    verdict="failed",
    reason="it broke",
    rollback=Rollback(release=OLD, verdict="failed", reason="no replica is ready"),
)


class TestReport:
    def test_has_what_the_contract_names(self) -> None:
        """Programs read these names: contract, section 3."""
        report = FACTS.document()
        assert list(report) == [
            "schema",
            "environment",
            "target",
            "url",
            "number",
            "release",
            "previous",
            "commit",
            "dirty",
            "verdict",
            "reason",
            "started",
            "finished",
            "seconds",
            "stages",
            "traffic",
            "inside",
            "remarks",
            "unremoved",
            "back",
            "log",
            "events",
            "rollback",
            "watch",
        ]
        assert report["schema"] == "slipway.report/1"
        assert report["stages"] == [
            {"name": "build", "at": 1_799_999_999.0, "seconds": 1.25, "outcome": "ok", "note": f"release {NEW}"}
        ]
        traffic = report["traffic"]
        assert {key: traffic[key] for key in ("sent", "ok", "failed", "baseline", "latency_ms")} == {
            "sent": 252,
            "ok": 240,
            "failed": 12,
            "baseline": 10,
            "latency_ms": {"p50": 4.0, "p95": 9.0, "p99": 12.0, "max": 20.0},
        }
        assert traffic["by_release"] == {
            OLD: {"sent": 150, "ok": 140, "failed": 10, "latency_ms": traffic["latency_ms"]},
            NEW: {"sent": 100, "ok": 100, "failed": 0, "latency_ms": traffic["latency_ms"]},
        }
        assert (traffic["writes_acknowledged"], traffic["writes_lost"]) == (30, 0)
        assert {kind: found["count"] for kind, found in traffic["failures"].items()} == {"5xx": 10, "reset": 2}
        assert traffic["failures"]["5xx"]["examples"][0]["request_id"] == "0123456789abcdef"

    def test_counts_slow_answers_only_where_they_judged(self) -> None:
        """A late answer is no failure until the verdict says so."""
        slow = measured(TRAFFIC, slow=True).failures["slow"]
        assert (slow.count, len(slow.examples)) == (3, 1)
        assert "slow" not in measured(TRAFFIC).failures

    def test_counts_lost_writes_as_a_kind_of_failure(self) -> None:
        """They fail a deploy, so they are listed with the other reasons."""
        lost = replace(TRAFFIC, writes_lost=2, failures=(failure("lost", NEW, ""),))
        assert measured(lost).failures["lost"].count == 2

    def test_shows_the_new_releases_failures_first(self) -> None:
        """If the old release fails too, its examples must not push the new one's out."""
        old = [failure("5xx", OLD, f"2027-01-15T08:00:0{second}") for second in range(7)]
        traffic = replace(TRAFFIC, failures=(*old, failure("5xx", NEW, "2027-01-15T08:00:09")))
        assert [example.release for example in measured(traffic).failures["5xx"].examples] == [NEW, OLD, OLD, OLD, OLD]

    def test_holds_the_rollback_with_its_own_proof(self) -> None:
        """The rollback has the same fields for its own traffic."""
        rollback = Rollback(release=OLD, verdict="proved", reason=None, traffic=measured(TRAFFIC))
        report = replace(UNDONE, rollback=rollback).document()
        assert report["rollback"]["release"] == OLD
        assert report["rollback"]["traffic"]["sent"] == 252

    def test_is_json(self) -> None:
        """Nothing in it needs an encoder."""
        assert json.loads(json.dumps(UNDONE.document())) == UNDONE.document()
