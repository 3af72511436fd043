"""The result of a deploy or rollback, as a value; `deploy.evidence` shows it to people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from pipeline.proof.comparison import Comparison, Slower, compare
from pipeline.proof.results import QUIET, Bin, Failure, Latency, Phase, Share, TrafficResult
from pipeline.proof.verdict import rate_of_failures
from pipeline.system.progress import StageRecord

__all__ = [
    "SCHEMA",
    "WATCHING",
    "Answers",
    "Failures",
    "Mark",
    "Report",
    "Rollback",
    "Toll",
    "TrafficReport",
    "Watched",
    "traffic_report",
]

SCHEMA = "slipway.report/1"
EXAMPLES = 5  # of each kind of failure
WATCHING = "watching"


@dataclass(frozen=True)
class Mark:
    """A moment of the deploy, `at` seconds since the Unix epoch."""

    at: float
    name: str


@dataclass(frozen=True)
class Answers:
    """The counts and latencies of the requests that one release answered."""

    sent: int
    ok: int
    failed: int
    latency_ms: Latency | None


@dataclass(frozen=True)
class Failures:
    """The failures of one kind, with the first examples."""

    count: int
    examples: Sequence[Failure]


@dataclass(frozen=True, kw_only=True)
class TrafficReport:
    """What the traffic measured, in the names and the order of `report.json`."""

    sent: int
    ok: int
    failed: int
    baseline: int  # failures before anything was changed
    by_release: Mapping[str, Answers]  # answers that name no release are only in the totals and in `failures`
    failures: Mapping[str, Failures]  # by kind, the most frequent first
    latency_ms: Latency | None
    confidence: float | None  # so large a share of requests may fail, with 95 % confidence
    comparison: Comparison | None  # with the release before; not of a rollback, which is judged on errors alone
    writes_acknowledged: int
    writes_lost: int
    writes_unread: int
    writes_left: int
    generator_lag_ms: float
    generator_stalled_ms: float
    generator_skipped: int
    generator_cpu_seconds: float
    phases: Sequence[Phase]
    timeline: Sequence[Bin]


@dataclass(frozen=True)
class Toll:
    """The requests that were sent, and those that failed, from the first one until a failed release was undone."""

    sent: int
    failed: int

    @classmethod
    def of(cls, shares: Sequence[Share]) -> Toll:
        """Return the counts of `shares`."""
        return cls(sum(share.sent for share in shares), sum(share.sent - share.ok for share in shares))

    def __str__(self) -> str:
        return f"{self.failed or 'none'} of {self.sent} requests failed until it was undone"


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """The result of undoing a deploy. `release` is the one that was brought back.

    `until_undone` counts the requests of both traffics, without those that the release brought back answered alone.
    """

    release: str | None
    verdict: str
    reason: str | None
    until_undone: Toll | None = None  # None: it was not undone, or nothing was sent
    stages: Sequence[StageRecord] = ()
    traffic: TrafficReport | None = None


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What became of the watch of a release that was proved. `said` is that in words.

    `outcome`: `watching` (still, or killed), `quiet`, `nothing` (too little was seen for a verdict), `superseded`,
    `left` (by who interrupted it), `fired`. `requests`: the most that were counted in two minutes, None where nobody
    could be asked. `sent`, `failed`: of the watch's own traffic. `until`: when its time is over, RFC 3339.
    """

    minutes: float
    outcome: str
    said: str
    seconds: float = 0.0
    requests: int | None = None
    alert: str | None = None
    sent: int = 0
    failed: int = 0
    until: str | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A deploy or rollback, in the names and the order of `report.json`. Times are RFC 3339.

    `stages` are the deploy's own, `events` are further marks for the picture (a replica that joined the edge).
    """

    environment: str
    target: str
    url: str
    number: int
    release: str | None
    previous: str | None
    commit: str | None
    dirty: bool
    verdict: str  # proved, unchanged, inconclusive, rolled_back, failed, interrupted
    reason: str | None
    started: str
    finished: str | None = None  # None: the deploy was killed, and a later one wrote this
    seconds: float | None = None  # from `started` to `finished`, by a clock that nobody sets
    stages: Sequence[StageRecord] = ()
    traffic: TrafficReport | None = None
    inside: tuple[str, Mapping[str, Any]] | None = None  # what the vantage saw: in words, and as figures
    remarks: Sequence[str] = ()  # what to know besides, and what the engine did on its own meanwhile
    unremoved: str | None = None  # why what the proof wrote may still be there
    back: str | None = None  # the release that `rollback` goes back to from here, where this one is proved
    log: str | None = None  # the command that finds REQUEST_ID in the service's log
    events: Sequence[Mark] = ()
    rollback: Rollback | None = None
    watch: Watched | None = None  # what was heard afterwards, where the environment has `watch_minutes`

    def document(self) -> dict[str, Any]:
        """Return the content of `report.json`, whose names other programs rely on."""
        inside = {"said": self.inside[0], **self.inside[1]} if self.inside else None
        values = json.dumps({"schema": SCHEMA, **asdict(self), "inside": inside})
        document: dict[str, Any] = json.loads(values)  # lists, where this has tuples
        return document

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Report:
        """Return the report of a `document`. Raise `ValueError` where that is none of this version's."""
        values = {name: value for name, value in document.items() if name != "schema"}
        if inside := values.get("inside"):
            values["inside"] = (inside["said"], {name: value for name, value in inside.items() if name != "said"})
        return TypeAdapter(cls).validate_python(values)


def traffic_report(
    result: TrafficResult | None,
    release: str | None,
    *,
    old: str | None = None,
    slower: Slower | None = None,
    slow: bool = False,
) -> TrafficReport | None:
    """Return what `result` says about a rollout of `release`.

    It is compared with `old`, unless nobody says what `slower` means. `slow`: the verdict is that it is too slow.
    """
    if result is None:
        return None
    comparison = None
    if slower and release:
        comparison = compare(result.series, new=release, old=old if old != release else None, slower=slower)
    return TrafficReport(
        sent=result.sent,
        ok=result.ok,
        failed=result.failed,
        baseline=sum(share.sent - share.ok for share in result.shares if share.phase in QUIET),
        by_release=_by_release(result),
        failures=_failures(result, release, slow=slow),
        latency_ms=result.latency,
        confidence=rate_of_failures(result, release) if release else None,
        comparison=comparison,
        writes_acknowledged=result.writes_acknowledged,
        writes_lost=result.writes_lost,
        writes_unread=result.writes_unread,
        writes_left=result.writes_left,
        generator_lag_ms=result.lag_ms,
        generator_stalled_ms=result.stalled_ms,
        generator_skipped=result.skipped,
        generator_cpu_seconds=result.cpu_seconds,
        phases=result.phases,
        timeline=result.bins,
    )


def _by_release(result: TrafficResult) -> dict[str, Answers]:
    sent: Counter[str] = Counter()
    ok: Counter[str] = Counter()
    for share in result.shares:
        if share.release:
            sent[share.release] += share.sent
            ok[share.release] += share.ok
    return {name: Answers(n, ok[name], n - ok[name], result.by_release.get(name)) for name, n in sent.items()}


def _failures(result: TrafficResult, release: str | None, *, slow: bool) -> dict[str, Failures]:
    counts = sum((Counter(share.failed) for share in result.shares), Counter[str]())
    counts["lost"] = result.writes_lost
    counts["slow"] = sum(share.slow for share in result.shares if share.release == release) if slow else 0
    # The new release's come first: if the old one fails too, its failures are older and say nothing about this deploy.
    ordered = sorted(result.failures, key=lambda failure: (failure.release != release, failure.at))
    return {
        kind: Failures(count, tuple(failure for failure in ordered if failure.kind == kind)[:EXAMPLES])
        for kind, count in counts.most_common()
        if count
    }
