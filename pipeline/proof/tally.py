"""The counters of the traffic: by phase and release, over time, and the first examples of what went wrong."""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.proof.answers import Answer, RequestFailed
from pipeline.proof.exchange import HEALTH, Sent
from pipeline.proof.results import BUILD, Bin, Failure, Latency, Series, Share

__all__ = ["Outcome", "Tally"]

EXAMPLES = 5  # for each kind, phase and release
BIN_SECONDS = 0.5
MOST_BINS = 240  # the number of bars that a picture can show


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    `at` is when it was due, in seconds since the Unix epoch; `error` is None where the answer was correct.
    """

    exchange: Sent
    phase: str
    at: float
    latency_ms: float
    answer: Answer | None
    error: RequestFailed | None

    @property
    def release(self) -> str | None:
        """The release that answered, if the answer names one."""
        return self.answer.release if self.answer else None

    def example(self, kind: str) -> Failure:
        """Return this outcome as an example of `kind`."""
        return self.exchange.failure(
            kind,
            at=self.at,
            phase=self.phase,
            release=self.release,
            status=self.answer.status if self.answer else None,
            detail=self.error.detail if self.error else "",
        )


@dataclass
class _Cell:
    failed: Counter[str] = field(default_factory=Counter)
    slow: int = 0
    latencies: list[float] = field(default_factory=list)  # ascending, of correct answers but those of /health
    health: int = 0
    long: int = 0  # correct answers that may take their own time

    def share(self, phase: str, release: str | None) -> Share:
        ok, latency = len(self.latencies) + self.health + self.long, Latency.of(self.latencies)
        return Share(phase, release, ok, dict(self.failed), self.slow, latency, self.health)


@dataclass
class _Answers:
    ok: int = 0
    failed: int = 0
    at: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)


@dataclass
class _Moment:
    answered: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    latencies: list[float] = field(default_factory=list)


class Tally:
    """The counts of outcomes since `started` (seconds since the Unix epoch).

    Correct answers later than `slow_ms`, if that is given, are also counted, and shown, as slow.
    """

    def __init__(self, started: float, slow_ms: float | None) -> None:
        self._started, self._slow_ms = started, slow_ms
        self._cells: dict[tuple[str, str | None], _Cell] = {}
        self._moments: dict[int, _Moment] = {}
        self._answers: dict[tuple[str, str, str | None], _Answers] = {}
        self._examples: dict[tuple[str, str, str | None], list[Failure]] = {}

    def add(self, outcome: Outcome) -> None:
        """Count `outcome`."""
        cell = self._cells.setdefault((outcome.phase, outcome.release), _Cell())
        self._note(outcome)
        moment = self._moments.setdefault(int((outcome.at - self._started) / BIN_SECONDS), _Moment())
        if outcome.error:
            cell.failed[outcome.error.kind] += 1
            moment.failed += 1
            self._exemplify(outcome, outcome.error.kind)
            return
        if outcome.exchange.spec == HEALTH:
            cell.health += 1
            moment.answered[outcome.release or ""] += 1
            return
        if outcome.exchange.spec.seconds is not None:
            cell.long += 1
            moment.answered[outcome.release or ""] += 1
            return
        bisect.insort(cell.latencies, outcome.latency_ms)
        moment.latencies.append(outcome.latency_ms)
        moment.answered[outcome.release or ""] += 1
        if self._slow_ms is not None and outcome.latency_ms > self._slow_ms:
            cell.slow += 1
            self._exemplify(outcome, "slow")

    def shares(self) -> tuple[Share, ...]:
        """Return the counts by phase and release."""
        return tuple(cell.share(phase, release) for (phase, release), cell in self._cells.items())

    def series(self) -> tuple[Series, ...]:
        """Return what each release answered to each request in each phase, without /health and the build."""
        return tuple(
            Series(*key, answers.ok, answers.failed, tuple(answers.at), tuple(answers.ms))
            for key, answers in self._answers.items()
        )

    def examples(self) -> tuple[Failure, ...]:
        """Return the first examples of each kind, phase and release, oldest first."""
        kept = (example for examples in self._examples.values() for example in examples)
        return tuple(sorted(kept, key=lambda example: example.at))

    def by_release(self) -> dict[str, Latency | None]:
        """Return the latencies of each release over all phases."""
        releases = dict.fromkeys(release for _, release in self._cells if release)
        return {
            name: self._over(cell for (_, release), cell in self._cells.items() if release == name) for name in releases
        }

    def latency(self) -> Latency | None:
        """Return the latencies of all correct answers."""
        return self._over(self._cells.values())

    def bins(self, until: float) -> tuple[Bin, ...]:
        """Return the traffic over time up to the last request at `until`, in few enough steps to fit a picture."""
        if not self._moments:
            return ()
        first, last = min(self._moments), max(self._moments)
        step = next(n for n in (1, 2, 4, 10, 20, 60, 120, 1200, 12000) if (last - first) / n < MOST_BINS)
        return tuple(self._bin(start, step, until) for start in range(first, last + 1, step))

    def _note(self, outcome: Outcome) -> None:
        spec = outcome.exchange.spec
        if spec == HEALTH or outcome.phase == BUILD:
            return
        answers = self._answers.setdefault((spec.name, outcome.phase, outcome.release), _Answers())
        if outcome.error:
            answers.failed += 1
            return
        answers.ok += 1
        if spec.seconds is None:
            answers.at.append(round(outcome.at - self._started, 3))
            answers.ms.append(round(outcome.latency_ms, 2))

    def _bin(self, start: int, step: int, until: float) -> Bin:
        at = self._started + start * BIN_SECONDS
        moments = [self._moments[at] for at in range(start, start + step) if at in self._moments]
        latency = Latency.of(sorted(value for moment in moments for value in moment.latencies))
        answered: Counter[str] = sum((moment.answered for moment in moments), Counter())
        return Bin(
            at=at,
            seconds=min(step * BIN_SECONDS, max(until - at, 0.05)),
            answered=dict(answered),
            failed=sum(moment.failed for moment in moments),
            p50=latency.p50 if latency else None,
            p95=latency.p95 if latency else None,
        )

    @staticmethod
    def _over(cells: Iterable[_Cell]) -> Latency | None:
        return Latency.of(list(heapq.merge(*(cell.latencies for cell in cells))))

    def _exemplify(self, outcome: Outcome, kind: str) -> None:
        examples = self._examples.setdefault((kind, outcome.phase, outcome.release), [])
        if len(examples) < EXAMPLES:
            examples.append(outcome.example(kind))
