"""What the traffic measured: the values that cross from the generator's process, as JSON, to the deploy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = [
    "BASELINE",
    "BUILD",
    "QUIET",
    "Bin",
    "Failure",
    "Latency",
    "Phase",
    "Series",
    "Share",
    "Snapshot",
    "TrafficResult",
]

BUILD, BASELINE = "build", "baseline"
QUIET = (BUILD, BASELINE)  # the phases before anything of the release is there


@dataclass(frozen=True)
class Latency:
    """Milliseconds from when a request was due to its whole answer, for correct answers."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, ordered: Sequence[float]) -> Latency | None:
        """Return the nearest-rank percentiles of `ordered`, milliseconds in ascending order; None if it is empty."""
        if not ordered:
            return None
        ranks = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 0.99, 1))
        return cls(*(round(value, 2) for value in ranks))


@dataclass(frozen=True)
class Share:
    """The requests due in one phase that one release answered.

    `release` is None where there was no answer or one that names no release. A request of before the rollout that was
    cut in it counts there.
    """

    phase: str
    release: str | None
    ok: int
    failed: Mapping[str, int]  # by kind
    slow: int  # correct, but later than the plan's `slow_ms`
    latency: Latency | None
    health: int = 0  # of `ok`, the answers of /health: they have no part in the latency, and prove nothing

    @property
    def sent(self) -> int:
        """The number of requests in this share."""
        return self.ok + sum(self.failed.values())

    @property
    def telling(self) -> int:
        """The number of requests that say something about the service: not those to /health that were answered."""
        return self.sent - self.health


@dataclass(frozen=True)
class Series:
    """What one release answered to one declared request, or to one of its steps, in one phase.

    `at` and `ms` have each correct answer: when it was due, in seconds since the traffic began, and how long it took. A
    request that may take its own time has none. `release` is None as in a `Share`.
    """

    request: str
    phase: str
    release: str | None
    ok: int
    failed: int
    at: Sequence[float]
    ms: Sequence[float]


@dataclass(frozen=True)
class Failure:
    """One example of a failure.

    `at` is RFC 3339; `kind` is refused, reset, timeout, 5xx, status, body, slow or lost.
    """

    kind: str
    at: str
    phase: str
    request: str
    method: str
    path: str
    request_id: str
    release: str | None
    status: int | None
    detail: str


@dataclass(frozen=True)
class Bin:
    """What became of the requests due in `seconds` from `at` (seconds since the Unix epoch); latencies in ms."""

    at: float
    seconds: float
    answered: Mapping[str, int]  # correct answers by release; "" where the answer names none
    failed: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class Phase:
    """When a phase began, in seconds since the Unix epoch."""

    name: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is known while the traffic runs. `lag_ms` is the furthest that the generator itself ever fell behind."""

    seconds: float
    phase: str
    outstanding: int
    shares: tuple[Share, ...] = ()
    failures: tuple[Failure, ...] = ()
    series: tuple[Series, ...] = ()  # only where it is settled, and at the end
    lag_ms: float = 0.0
    settled: bool = False  # nothing more falls due, and every request that did is over

    @property
    def sent(self) -> int:
        """The requests that are over."""
        return sum(share.sent for share in self.shares)

    @property
    def ok(self) -> int:
        """The requests with a correct answer."""
        return sum(share.ok for share in self.shares)

    @property
    def failed(self) -> int:
        """The requests without a correct answer."""
        return self.sent - self.ok

    @property
    def telling(self) -> int:
        """The requests that say something about the service."""
        return sum(share.telling for share in self.shares)

    @property
    def shown(self) -> tuple[str, ...]:
        """The routes that show people what the proof wrote: known only at the end."""
        return ()

    @property
    def lost(self) -> int:
        """The acknowledged writes that are gone: known only at the end."""
        return 0

    @property
    def left(self) -> int:
        """The synthetic writes that could not be removed: known only at the end."""
        return 0

    @property
    def unsent(self) -> int:
        """The requests that the generator itself was too late to send: known only at the end."""
        return 0

    def dump(self) -> dict[str, Any]:
        """Return the measurements as JSON values."""
        return asdict(self)

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Snapshot:
        """Create a snapshot from what `dump` returned."""
        return cls(**{**values, **_nested(values)})


@dataclass(frozen=True, kw_only=True)
class TrafficResult(Snapshot):
    """What is known at the end.

    `exposed` are the routes that show people what the proof wrote, `unchecked` says where that could not be seen. `ids`
    are those of the writes that a command removes; of `unplaced` further ones the ids are not known.

    `skipped` requests were more than a second late through the generator's own fault and never sent, `stalled_ms` is
    how long it could not run, `cpu_seconds` is the CPU time it used.
    """

    started: float
    by_release: Mapping[str, Latency | None] = field(default_factory=dict)
    latency: Latency | None = None
    writes_acknowledged: int = 0
    writes_lost: int = 0
    writes_unread: int = 0  # not read back, because the traffic was stopped at once
    writes_left: int = 0  # not removed yet; they stay in the journal
    exposed: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    unplaced: int = 0
    bins: tuple[Bin, ...] = ()
    phases: tuple[Phase, ...] = ()
    stalled_ms: float = 0.0
    skipped: int = 0
    cpu_seconds: float = 0.0

    @property
    def shown(self) -> tuple[str, ...]:
        """The routes that show people what the proof wrote."""
        return self.exposed

    @property
    def lost(self) -> int:
        """The acknowledged writes that are gone."""
        return self.writes_lost

    @property
    def left(self) -> int:
        """The synthetic writes that could not be removed."""
        return self.writes_left

    @property
    def unsent(self) -> int:
        """The requests that the generator itself was too late to send."""
        return self.skipped

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> TrafficResult:
        """Create a result from what `dump` returned."""
        own = {
            "by_release": {name: _latency(value) for name, value in values["by_release"].items()},
            "latency": _latency(values["latency"]),
            "bins": tuple(Bin(**entry) for entry in values["bins"]),
            "phases": tuple(Phase(**entry) for entry in values["phases"]),
            **{name: tuple(values[name]) for name in ("exposed", "unchecked", "ids")},
        }
        return cls(**{**values, **_nested(values), **own})


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "shares": tuple(Share(**{**entry, "latency": _latency(entry["latency"])}) for entry in values["shares"]),
        "failures": tuple(Failure(**entry) for entry in values["failures"]),
        "series": tuple(Series(**entry) for entry in values["series"]),
    }


def _latency(value: Mapping[str, float] | None) -> Latency | None:
    return Latency(**value) if value else None
