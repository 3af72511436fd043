"""Which requests are compared, and what is held against a release."""

from __future__ import annotations

import random
from collections.abc import Callable

from pipeline.proof.comparison import Compared, Comparison, Slower, compare
from pipeline.proof.results import Series

NEW, OLD = "new", "old"
Noise = Callable[[float], float]


def steady(_: float) -> float:
    """A machine that does nothing else."""
    return 1.0


def answers(
    name: str,
    release: str,
    start: float,
    seconds: float,
    *,
    ms: float = 4.0,
    rate: float = 20,
    noise: Noise = steady,
    phase: str = "bake",
    seed: int = 1,
) -> Series:
    """Return the answers of some seconds, each up to a third slower or faster than `ms` times the machine's `noise`."""
    chance = random.Random(f"{name} {release} {start} {seed}")
    at = [start + number / rate for number in range(int(seconds * rate))]
    return Series(name, phase, release, len(at), 0, at, [ms * noise(one) * chance.uniform(0.75, 1.33) for one in at])


def compared(*series: Series, slower: Slower | None = None) -> Comparison:
    """Compare them."""
    return compare(series, new=NEW, old=OLD, slower=slower or Slower())


def one(comparison: Comparison, name: str = "list") -> Compared:
    """Return what is said of a request."""
    return next(line for line in comparison.requests if line.request == name)


class TestARequest:
    def test_is_compared_in_the_seconds_in_which_both_answered(self) -> None:
        """The machine got five times as slow between the baseline and the rollout: nobody is to blame."""

        def step(at: float) -> float:
            return 1.0 if at < 5 else 5.0

        same = compared(
            answers("list", OLD, 0, 5, noise=step),
            answers("list", OLD, 5, 4, noise=step),
            answers("list", NEW, 5, 4, noise=step),
            answers("list", NEW, 9, 5, noise=step),
        )
        assert not one(same).slow
        assert not one(same).unsure
        assert same.tail
        assert not same.tail.slow

    def test_that_is_slower_there_is_slow(self) -> None:
        """Thirty milliseconds are found below noise of the machine's own."""

        def waves(at: float) -> float:
            return 1 + 4 * (int(at) % 3)

        slow = compared(
            answers("list", OLD, 0, 8, noise=waves),
            answers("list", NEW, 4, 4, noise=waves, ms=34),
            answers("list", NEW, 8, 5, noise=waves, ms=34),
            answers("one", OLD, 0, 8, noise=waves),
            answers("one", NEW, 4, 9, noise=waves),
        )
        assert (one(slow).slow, one(slow, "one").slow) == (True, False)
        assert str(one(slow)).startswith("`list` ")
        effect = one(slow).effect
        assert effect
        assert effect.low
        assert effect.low > 1.5

    def test_is_compared_with_all_seconds_where_both_hardly_answered(self) -> None:
        """A rollout that took no time."""
        fast = compared(answers("list", OLD, 0, 9), answers("list", NEW, 9, 9))
        slow = compared(answers("list", OLD, 0, 9), answers("list", NEW, 9, 9, ms=20))
        assert (one(fast).slow, one(fast).unsure) == (False, False)
        assert (one(slow).slow, one(slow).unsure) == (True, False)

    def test_of_too_few_seconds_is_unsure(self) -> None:
        """Three and three seconds cannot show anything, though each answer is slow."""
        short = compared(answers("list", OLD, 0, 3), answers("list", NEW, 3, 3, ms=20))
        assert (one(short).slow, one(short).unsure) == (False, True)

    def test_that_both_answered_as_fast_is_not_slow_later(self) -> None:
        """The few seconds that they shared have a veto: the machine got slow when the old release had gone."""
        late = compared(
            answers("list", OLD, 0, 9.5, rate=4),
            answers("list", NEW, 8, 1.5, rate=4),
            answers("list", NEW, 10, 9, ms=20, rate=4),
        )
        assert (one(late).slow, one(late).unsure) == (False, False)

    def test_is_not_slow_by_a_few_milliseconds(self) -> None:
        """Twice as slow is nothing where it is 4 ms more."""
        fast = compared(answers("list", OLD, 0, 9), answers("list", NEW, 9, 9, ms=8))
        assert not one(fast).slow
        strict = compared(answers("list", OLD, 0, 9), answers("list", NEW, 9, 9, ms=8), slower=Slower(1.5, 1))
        assert one(strict).slow

    def test_is_left_out_for_a_reason(self) -> None:
        """Each of them is in the table, with what is known."""
        found = compared(
            answers("list", OLD, 0, 9),
            answers("list", NEW, 9, 9),
            answers("rare", OLD, 0, 9, rate=1),
            answers("rare", NEW, 9, 9, rate=1),
            answers("gone", OLD, 0, 9),
            answers("added", NEW, 9, 9),
            Series("long", "bake", OLD, 30, 0, (), ()),
            Series("long", "bake", NEW, 30, 0, (), ()),
            Series("broken", "bake", OLD, 0, 30, (), ()),
            Series("broken", "bake", NEW, 0, 30, (), ()),
        )
        assert {line.request: line.without for line in found.requests} == {
            "list": "",
            "rare": "9 answers are too few",
            "gone": "the new release was not asked",
            "added": "the release before was not asked",
            "long": "it may take its own time",
            "broken": "no correct answer",
        }
        rare = one(found, "rare").new
        assert rare
        assert (rare.sent, rare.failed) == (9, 0)


class TestTheTail:
    def test_is_slow_where_one_answer_in_twenty_is(self) -> None:
        """No median moves."""

        def rarely(at: float) -> float:
            return 1.0 if round(at * 100) % 17 else 100.0

        found = compared(
            answers("list", OLD, 0, 9, rate=100),
            answers("list", NEW, 6, 3, noise=rarely, rate=100),
            answers("list", NEW, 9, 9, noise=rarely, rate=100),
        )
        assert not one(found).slow
        assert found.tail
        assert found.tail.slow
        assert str(found.tail).endswith("ms, before 0 %")

    def test_of_one_bad_second_is_not(self) -> None:
        """All of its answers are one witness."""

        def once(at: float) -> float:
            return 100.0 if int(at) == 12 else 1.0

        found = compared(answers("list", OLD, 0, 9), answers("list", NEW, 9, 9, noise=once))
        assert found.tail
        assert found.tail.fits
        assert (found.tail.slow, found.tail.unsure) == (False, False)

    def test_is_nobodys_without_a_release_before(self) -> None:
        """There is nothing to compare with."""
        found = compare([answers("list", NEW, 0, 9)], new=NEW, old=None, slower=Slower())
        assert (found.tail, found.lines, one(found).without) == (None, [], "there was no release before")


def test_a_long_rollout_is_compared_in_longer_seconds() -> None:
    """A quarter of an hour takes no longer to judge than four minutes."""
    found = compared(
        answers("list", OLD, 0, 900, rate=50), answers("list", NEW, 100, 900, rate=50), answers("list", NEW, 1000, 60)
    )
    assert not one(found).slow
