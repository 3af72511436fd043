"""The reports in `golden/`, byte for byte: programs read them, whatever release of the pipeline wrote them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.deploy.evidence import write_evidence
from pipeline.proof.comparison import Slower
from pipeline.proof.report import Report, Rollback, traffic_report
from pipeline.proof.results import Bin, Phase, Series, Share
from pipeline.system.progress import StageRecord
from tests.pipeline.proof.test_report import FACTS, NEW, NO_BUILD, OLD, TRAFFIC, UNCHANGED, failure, measured

GOLDEN = Path(__file__).parent / "golden"
START = 1_800_000_000.0
STAGES = (
    StageRecord("plan", START - 3, 0.5, "ok"),
    StageRecord("roll out", START + 1, 2.0, "ok"),
    StageRecord("prove", START + 2.5, 1.0, "failed", "it said `no` | twice"),
)
BUSY = replace(
    TRAFFIC,
    shares=(*TRAFFIC.shares, Share("bake", "third", 7, {"status": 1}, 0, None)),
    failures=(
        *TRAFFIC.failures,
        *(failure("5xx", NEW, f"2027-01-15T08:00:0{second}.000+00:00") for second in range(7)),
    ),
    bins=(
        Bin(START, 0.5, {OLD: 25}, 0, 4.0, 9.0),
        Bin(START + 0.5, 0.5, {OLD: 15, NEW: 9, "": 1}, 2, 5.0, 700.0),
        Bin(START + 2.5, 0.5, {NEW: 20, "third": 3}, 0, None, None),
    ),
    phases=(Phase("baseline", START), Phase("bake", START + 1)),
    writes_lost=2,
    writes_left=1,
    stalled_ms=3.5,
    skipped=4,
)
SERIES = (
    Series("list", "baseline", OLD, 100, 10, [number / 50 for number in range(100)], [4.0] * 100),
    Series("list", "bake", NEW, 100, 0, [10 + number / 50 for number in range(100)], [5.0] * 100),
    Series("rare", "bake", NEW, 1, 0, [11.0], [3.0]),
)
BACK = replace(TRAFFIC, bins=(Bin(START + 6, 0.5, {OLD: 25}, 0, 4.0, 9.0),), writes_unread=30)
REPORTS: dict[str, Report] = {
    "proved": replace(
        FACTS,
        stages=STAGES,
        traffic=traffic_report(replace(TRAFFIC, series=SERIES), NEW, old=OLD, slower=Slower()),
        remarks=("a node was drained",),
        inside=("nothing was lost on the way", {"sent": 3, "failed_at": [1.5]}),
    ),
    "unchanged": replace(UNCHANGED, reason="this was a dry run of release b"),
    "failed": NO_BUILD,
    "interrupted": replace(
        NO_BUILD, verdict="interrupted", reason="the deploy died in stage `prove`", previous=None, finished=None,
        seconds=None, stages=(), events=(),
    ),
    "rolled_back": replace(
        FACTS,
        verdict="rolled_back",
        reason="12 of 840 requests failed: 12 × 5xx",
        stages=STAGES,
        traffic=measured(BUSY, slow=True),
        rollback=Rollback(
            release=OLD,
            verdict="proved",
            reason=None,
            stages=(StageRecord("roll back", START + 4, 2.0, "ok", f"to release {OLD}"),),
            traffic=traffic_report(BACK, OLD),
        ),
    ),
    "first": replace(
        FACTS,
        verdict="failed",
        reason="nobody answers",
        previous=None,
        commit=None,
        traffic=measured(replace(TRAFFIC, by_release={}, latency=None)),
        rollback=Rollback(release=None, verdict="failed", reason="there is no earlier release"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_stays_as_it_is(name: str, tmp_path: Path) -> None:
    """Its names, their order and its values."""
    write_evidence(tmp_path, REPORTS[name])
    assert (tmp_path / "report.json").read_bytes() == (GOLDEN / f"{name}.json").read_bytes()
