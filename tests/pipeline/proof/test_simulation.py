"""The verdict on the recorded noise of a 2-core machine, quiet and busy: what it finds, and what it leaves alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipeline.proof.baking import BakePlan
from pipeline.proof.verdict import ENOUGH
from tests.pipeline.proof.power import PAGE, slower, written
from tests.pipeline.proof.simulation import RARE, SHIPPED, Change, recordings, simulate, unchanged

KINDS = ("quiet", "busy")


def verdicts(kind: str, change: Change, deploys: int, shipped: BakePlan = SHIPPED) -> Counter[str]:
    """Count what becomes of some deploys, cut from all recordings of a kind."""
    noise = recordings(kind)
    return Counter(simulate(noise[seed % len(noise)], seed, change, shipped)[0] for seed in range(deploys))


def late(chance: random.Random, _: str, ms: float) -> float:
    """One answer in twelve takes half a second: the 95th percentile goes from 8 to 480 ms."""
    return 480.0 if chance.random() < 1 / 12 else ms


def ninety_nine(_: random.Random, __: str, ms: float) -> float:
    """The median goes from 3 to 99 ms."""
    return ms + 96


def test_there_are_ten_recordings() -> None:
    """Of real deploys, five beside eight busy processes."""
    assert [len(recordings(kind)) for kind in KINDS] == [5, 5]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unchanged_is_not_refused(kind: str) -> None:
    """At most one of two hundred deploys of the same code; here, none, and few take longer."""
    seen = verdicts(kind, unchanged, 200)
    assert seen["slow"] <= 1
    assert seen["proved"] >= 195


@pytest.mark.parametrize("kind", KINDS)
def test_thirty_milliseconds_on_a_rare_request_are_found(kind: str) -> None:
    """One request in twenty has them: 19 of 20 such deploys are not proved, and on a quiet machine they are slow."""
    seen = verdicts(kind, slower(RARE, 30), 60)
    assert seen["proved"] <= 3
    assert seen["slow"] >= (57 if kind == "quiet" else 48)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [late, ninety_nine])
def test_what_the_limits_of_before_let_pass_is_not_proved(kind: str, change: Change) -> None:
    """Either was within five times the baseline, or below half a second."""
    seen = verdicts(kind, change, 40)
    assert seen["proved"] <= 2
    assert seen["slow"] >= (38 if change is ninety_nine or kind == "quiet" else 10)


@pytest.mark.parametrize("kind", KINDS)
def test_few_answers_are_inconclusive(kind: str) -> None:
    """At one request a second, a minute is not enough for anything."""
    assert verdicts(kind, unchanged, 5, BakePlan(rate=1, seconds=1, limit=60)) == {"inconclusive": 5}


def test_one_failure_in_a_hundred_is_found() -> None:
    """Among as many answers as a verdict needs, 19 of 20 times."""
    chance = random.Random(1)
    found = sum(any(chance.random() < 0.01 for _ in range(ENOUGH)) for _ in range(1000))
    assert found >= 940


@pytest.mark.e2e
def test_the_page_says_what_is_found() -> None:
    """The table is today's; `python -m tests.pipeline.proof.power --write` computes it."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == written(text)
