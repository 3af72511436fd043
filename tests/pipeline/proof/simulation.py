"""Deploys that are cut out of the recordings: what the verdict makes of the noise of a real machine."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.proof.baking import BakePlan
from pipeline.proof.results import BASELINE, Latency, Series, Share, Snapshot
from pipeline.proof.verdict import BAKE, CONFIRM, Limits, judge

__all__ = ["RARE", "SHIPPED", "Change", "recordings", "simulate", "unchanged"]

RECORDINGS = Path(__file__).parent / "recordings"
OLD, NEW = "old", "new"
ROLLOUT = "rollout"
RECORDED_RATE, BASELINE_SECONDS = 100, 2.0
RARE = "rare"  # one answer in twenty is taken for one to a request of this name

Change = Callable[[random.Random, str, float], float]  # of the ms that the new release needs for a request


@dataclass(frozen=True)
class Answer:
    """One of a recording; `at` is in seconds."""

    request: str
    release: str
    at: float
    ms: float


SHIPPED = BakePlan(rate=100, seconds=4, limit=60)  # of `local`


def unchanged(chance: random.Random, request: str, ms: float) -> float:
    """Need as long as before."""
    return ms


@cache
def recordings(kind: str) -> tuple[dict[str, list[Answer]], ...]:
    """Return the answers of each recording of a `kind` (quiet, busy) by phase, in order."""
    return tuple(_read(path) for path in sorted(RECORDINGS.glob(f"{kind}-*.json.gz")))


def _read(path: Path) -> dict[str, list[Answer]]:
    phases: dict[str, list[Answer]] = {}
    for one in json.loads(gzip.decompress(path.read_bytes())):
        phase = BAKE if one["phase"] == CONFIRM else one["phase"]
        phases.setdefault(phase, []).extend(
            Answer(one["request"], one["release"], at, ms) for at, ms in zip(one["at"], one["ms"], strict=True)
        )
    return {phase: sorted(answers, key=lambda one: one.at) for phase, answers in phases.items()}


def simulate(
    recording: dict[str, list[Answer]], seed: int, change: Change = unchanged, shipped: BakePlan = SHIPPED
) -> tuple[str, str]:
    """Return what becomes of a deploy with some seconds of this noise, and why: proved, slow or inconclusive."""
    chance = random.Random(seed)
    before, rollout = recording[BASELINE], recording[ROLLOUT]
    begin = chance.uniform(before[0].at, before[-1].at - BASELINE_SECONDS)
    shift = rollout[0].at - (begin + BASELINE_SECONDS)
    seen: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}

    def add(phase: str, answers: Sequence[tuple[Answer, float]]) -> None:
        for answer, at in answers:
            if chance.random() < shipped.rate / RECORDED_RATE:
                request = RARE if chance.random() < 1 / 20 else answer.request
                ms = change(chance, request, answer.ms) if answer.release == NEW else answer.ms
                times, values = seen.setdefault((request, phase, answer.release), ([], []))
                times.append(at)
                values.append(ms)

    add(BASELINE, [(one, one.at + shift) for one in before if begin <= one.at < begin + BASELINE_SECONDS])
    add(ROLLOUT, [(one, one.at) for one in rollout])
    bake = _endless(recording[BAKE], chance)
    phase, seconds, left = BAKE, shipped.seconds, shipped.limit
    while True:
        add(phase, _seconds(bake, seconds))
        series = [Series(*key, len(at), 0, at, ms) for key, (at, ms) in seen.items()]
        verdict = judge(_snapshot(series), Limits(), new=NEW, old=OLD)
        left -= seconds
        further = shipped.further(verdict, phase, left)
        if further is None:
            break
        phase, seconds = further
    if not verdict.ok:
        return "slow", verdict.reason
    return ("inconclusive", verdict.more) if verdict.more else ("proved", verdict.reason)


def _endless(answers: Sequence[Answer], chance: random.Random) -> Iterator[tuple[Answer, float]]:
    """Yield the answers of a bake from anywhere in it on, again and again, with the time since the first recorded."""
    start, length = chance.randrange(len(answers)), answers[-1].at - answers[0].at + 0.01
    lap = 0
    while True:
        for answer in answers[start:]:
            yield answer, answer.at + lap * length
        start, lap = 0, lap + 1


def _seconds(answers: Iterator[tuple[Answer, float]], seconds: float) -> list[tuple[Answer, float]]:
    taken = [next(answers)]
    while taken[-1][1] - taken[0][1] < seconds:
        taken.append(next(answers))
    return taken


def _snapshot(series: Sequence[Series]) -> Snapshot:
    cells: dict[tuple[str, str | None], list[float]] = {}
    for one in series:
        cells.setdefault((one.phase, one.release), []).extend(one.ms)
    shares = tuple(Share(*cell, len(ms), {}, 0, Latency.of(sorted(ms))) for cell, ms in cells.items())
    return Snapshot(seconds=0, phase=BAKE, outstanding=0, shares=shares, series=tuple(series), settled=True)
