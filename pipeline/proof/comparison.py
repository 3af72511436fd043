"""Each request, answered by the new release and by the one before it: how they differ, and how sure that is.

The machine's noise (a compile, a checkpoint of PostgreSQL) is the same for all answers of a second. So where both
releases answered in the same seconds, their answers are compared within each: noise drops out. Where they hardly did,
all seconds of one are compared with all seconds of the other; each counts once, by its median, because its answers are
not as many witnesses as they are; and the few seconds that they shared have a veto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median

from pipeline.proof.results import Latency, Series
from pipeline.proof.significance import Effect, Stratum, larger, least, more_often
from pipeline.system.text import figure

__all__ = ["LEAST_ANSWERS", "Compared", "Comparison", "Side", "Slower", "Tail", "compare"]

LEAST_ANSWERS = 20  # of the new release to a request: fewer say nothing about it
FAMILY = 0.001  # how often, at most, a release that is no slower may look slower in any of the comparisons
SUSPECT = 0.05  # a slowdown with a larger p-value is noise; one with a smaller needs more answers
TAIL = 0.03  # of all answers: so many more that are late are a slowdown, though no median moved
MOST_SECONDS = 240  # beyond that, what counts as a second is longer
MOST_ANSWERS = 25  # of one release to a request in a second: more would take time and tell little
SHORTEST_MS = 0.01  # what is measured is rounded to this

Seconds = Mapping[int, Sequence[float]]  # ms, of the answers in each second


@dataclass(frozen=True)
class Slower:
    """What slower means: `ratio` times as slow, and by more than `ms`."""

    ratio: float = 1.5
    ms: float = 5.0

    def fits(self, effect: Effect) -> bool:
        """Return whether `effect` is one, whether or not chance explains it."""
        return effect.ratio >= self.ratio and effect.more > self.ms


@dataclass(frozen=True)
class Side:
    """What one release answered to a request. `p50` and `p95`, in ms, are None where nothing was timed."""

    sent: int
    failed: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class Compared:
    """One request. `effect` is None where it is not compared; then `without` says why.

    `slow`: neither chance nor the machine explains it; `unsure`: it seems slow, and more answers would tell.
    """

    request: str
    old: Side | None
    new: Side | None
    effect: Effect | None = None
    slow: bool = False
    unsure: bool = False
    without: str = ""

    def __str__(self) -> str:
        assert self.effect
        assert self.old
        assert self.new
        effect = self.effect
        interval = (
            f", {figure(effect.low, 2)} to {figure(effect.high, 2)} with 95 % confidence"
            if effect.low and effect.high
            else ""
        )
        before, now = figure(self.old.p50 or 0), figure(self.new.p50 or 0)
        return f"`{self.request}` {now} ms against {before} ms ({figure(effect.ratio, 2)} ×{interval})"


@dataclass(frozen=True)
class Tail:
    """Which share of all answers took more than `ms`, which is `Slower` than 95 of 100 were before."""

    ms: float
    old: float
    new: float
    slow: bool = False
    unsure: bool = False

    @property
    def fits(self) -> bool:
        """Whether it is longer now, whether or not chance explains it."""
        return self.new - self.old >= TAIL

    def __str__(self) -> str:
        before, now = figure(100 * self.old, 2), figure(100 * self.new, 2)
        return f"{now} % of the answers took over {figure(self.ms)} ms, before {before} %"


@dataclass(frozen=True)
class Comparison:
    """Each request, in the order in which they were first sent, and the tail of all that are compared."""

    requests: Sequence[Compared] = ()
    tail: Tail | None = None

    @property
    def lines(self) -> list[Compared | Tail]:
        """What is compared: requests, then the tail."""
        return [*(one for one in self.requests if one.effect), *([self.tail] if self.tail else [])]

    def agrees(self, other: Compared | Tail, slower: Slower) -> bool | None:
        """Return whether this comparison has the slowdown `other`, too; None where it saw too little of it."""
        if isinstance(other, Tail):
            return self.tail.fits if self.tail else None
        effect = next((one.effect for one in self.requests if one.request == other.request), None)
        return slower.fits(effect) if effect else None


def compare(
    series: Sequence[Series], *, new: str, old: str | None, slower: Slower, phases: Sequence[str] | None = None
) -> Comparison:
    """Compare what `new` answered (in `phases`, or whenever) with what `old` answered."""
    asked = [one for one in series if one.release == old or phases is None or one.phase in phases]
    length = 1 + int(max(chain([0.0], *(one.at for one in asked))) // MOST_SECONDS)
    lines: dict[str, Compared] = {}
    for name in dict.fromkeys(one.request for one in asked):
        of = [one for one in asked if one.request == name]
        before, after = (_side([one for one in of if one.release == release]) for release in (old, new))
        without = _without(before, after) if old else "there was no release before"
        lines[name] = Compared(name, before, after, without=without)
    names = [name for name, line in lines.items() if not line.without]
    level = FAMILY / (len(names) + 1)
    for name in names:
        of = [one for one in asked if one.request == name]
        lines[name] = _request(lines[name], *_by_second(of, old, new, length), slower, level)
    of = [one for one in asked if one.request in names]
    tail = _tail(*_by_second(of, old, new, length), slower, level) if of else None
    return Comparison(tuple(lines.values()), tail)


def _side(series: Sequence[Series]) -> Side | None:
    if not series:
        return None
    latency = Latency.of(sorted(chain.from_iterable(one.ms for one in series)))
    p50, p95 = (latency.p50, latency.p95) if latency else (None, None)
    sent, failed = sum(one.ok + one.failed for one in series), sum(one.failed for one in series)
    return Side(sent, failed, p50, p95)


def _without(old: Side | None, new: Side | None) -> str:
    """Return why these are not compared, or ""."""
    if not new:
        return "the new release was not asked"
    if not old:
        return "the release before was not asked"
    answered = new.sent - new.failed
    if new.p50 is None or old.p50 is None:
        return "it may take its own time" if answered and old.sent > old.failed else "no correct answer"
    return f"{answered} answers are too few" if answered < LEAST_ANSWERS else ""


def _by_second(series: Iterable[Series], old: str | None, new: str, length: int) -> tuple[Seconds, Seconds]:
    """Return the answers of `old` and those of `new` in each second, or `length` of them."""
    seconds: dict[str | None, dict[int, list[float]]] = {old: {}, new: {}}
    for one in series:
        if one.release in seconds:
            for at, ms in zip(one.at, one.ms, strict=True):
                seconds[one.release].setdefault(int(at // length), []).append(max(ms, SHORTEST_MS))
    return seconds[old], seconds[new]


def _request(line: Compared, old: Seconds, new: Seconds, slower: Slower, level: float) -> Compared:
    shared = [(_few(old[at]), _few(new[at])) for at in sorted(old.keys() & new.keys())]
    whole: list[Stratum] = [([*map(median, old.values())], [*map(median, new.values())])]
    enough = bool(shared) and least(shared) <= level
    strata = shared if enough else whole
    effect, veto = larger(strata), larger(shared) if shared and not enough else None
    if not slower.fits(effect) or (veto and veto.ratio < slower.ratio):
        return Compared(line.request, line.old, line.new, effect)
    # A few shared answers have a veto by their ratio alone: chance explains too much of what they show.
    slow = effect.p <= level and (veto is None or veto.p <= SUSPECT or least(shared) > SUSPECT / 10)
    unsure = not slow and (effect.p <= SUSPECT or least(strata) > level)
    if unsure and enough:  # no further answer is shared: those that are still to come have to bear it out
        unsure = slower.fits(larger(whole))
    return Compared(line.request, line.old, line.new, effect, slow, unsure)


def _tail(old: Seconds, new: Seconds, slower: Slower, level: float) -> Tail | None:
    usual = Latency.of(sorted(chain.from_iterable(old.values())))
    if usual is None:
        return None
    limit = max(usual.p95 * slower.ratio, usual.p95 + slower.ms)
    late = [{at: sum(ms > limit for ms in answers) for at, answers in of.items()} for of in (old, new)]
    before, after = (_share(*pair) for pair in zip(late, (old, new), strict=True))
    tail = Tail(limit, before, after)
    if not tail.fits:
        return tail
    both = old.keys() & new.keys()
    shared = [_counts({at: of[at] for at in both}, all_) for of, all_ in zip(late, (old, new), strict=True)]
    if both and shared[1][0] / shared[1][1] - shared[0][0] / shared[0][1] < TAIL / 2:
        return tail
    # One is added because a share of none has no ratio: which is larger stays the same.
    shares = [[1 + of[at] / len(all_[at]) for at in of] for of, all_ in zip(late, (old, new), strict=True)]
    whole: list[Stratum] = [(shares[0], shares[1])]
    p = larger(whole).p
    slow = p <= level and (not both or more_often(*shared) <= SUSPECT)
    unsure = not slow and (p <= SUSPECT or least(whole) > level)
    return Tail(tail.ms, tail.old, tail.new, slow, unsure)


def _share(late: Mapping[int, int], answers: Seconds) -> float:
    some, all_ = _counts(late, answers)
    return some / all_


def _counts(late: Mapping[int, int], answers: Seconds) -> tuple[int, int]:
    return sum(late.values()), sum(len(answers[at]) for at in late)


def _few(values: Sequence[float]) -> Sequence[float]:
    step = max(1.0, len(values) / MOST_ANSWERS)
    return [values[int(index * step)] for index in range(int(len(values) / step))]
