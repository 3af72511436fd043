"""The statistics, against published examples and against what can be counted by hand."""

from __future__ import annotations

import itertools
import math

import pytest

from pipeline.proof import significance
from pipeline.proof.significance import larger, least, more_often, upper_bound

# Permeability of the human chorioamnion: Hollander, Wolfe and Chicken, example 4.1; R's documentation of wilcox.test.
TERM = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
WEEKS = [1.15, 0.88, 0.90, 0.74, 1.21]


class TestLarger:
    def test_has_the_p_value_of_the_textbook(self) -> None:
        """W = 35, p = 0.1272."""
        assert larger([(WEEKS, TERM)]).p == pytest.approx(0.1272, abs=5e-5)

    def test_counts_every_order(self) -> None:
        """Of two strata with 2 + 2 and 1 + 3 values, each order is as likely as any other."""
        first, second = range(4), range(4)
        wins = [
            sum(a < b for a in first if a not in new for b in new) + sum(old < b for b in second if b != old)
            for new in itertools.combinations(first, 2)
            for old in second
        ]
        for old, new in (((1, 2), (3, 4)), ((1, 4), (2, 3)), ((3, 4), (1, 2))):
            strata = [([*map(float, old)], [*map(float, new)]), ([2.0], [1.0, 3.0, 4.0])]
            seen = sum(a < b for a in old for b in new) + 2
            assert larger(strata).p == pytest.approx(sum(one >= seen for one in wins) / len(wins))

    def test_is_a_ratio_with_its_interval(self) -> None:
        """Three times as much is three times as much, whatever the spread."""
        old = [1.0 + 0.01 * number for number in range(20)]
        effect = larger([(old, [3 * value for value in old])])
        assert effect.ratio == pytest.approx(3, rel=0.02)
        assert effect.low
        assert effect.high
        assert effect.low < 3 < effect.high
        assert effect.high - effect.low < 0.5
        assert effect.more == pytest.approx(2.2, rel=0.05)

    def test_ignores_what_differs_between_the_strata(self) -> None:
        """A second that was slow for both says nothing about either."""
        strata = [([100.0 * second] * 3, [100.0 * second * 1.01] * 3) for second in range(1, 9)]
        effect = larger(strata)
        assert effect.ratio == pytest.approx(1.01)
        assert effect.p < 1e-6

    def test_has_no_interval_of_a_few_values(self) -> None:
        """Two and two can be in six orders."""
        effect = larger([([1.0, 2.0], [3.0, 4.0])])
        assert effect.p == pytest.approx(1 / 6)
        assert (effect.low, effect.high) == (None, None)

    def test_takes_a_tie_for_half_a_win(self) -> None:
        """Where all are equal, nothing is larger."""
        assert larger([([5.0] * 20, [5.0] * 20)]).p > 0.5

    def test_approximates_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The normal approximation says a little less than the exact test where it takes over."""
        old = [math.sin(number) + 2 for number in range(50)]
        new = [math.sin(number * 3) + 2.5 for number in range(50)]
        exact = larger([(old, new)])
        monkeypatch.setattr(significance, "EXACT", 0)
        normal = larger([(old, new)])
        assert 1e-6 < exact.p < 1e-3
        assert exact.p < normal.p < 1.2 * exact.p
        assert (normal.low, normal.high) == pytest.approx((exact.low, exact.high), rel=0.01)

    def test_least_is_one_order_of_all(self) -> None:
        """Of each stratum."""
        assert least([([1.0] * 3, [1.0] * 3), ([1.0], [1.0])]) == pytest.approx(1 / 20 / 2)


class TestUpperBound:
    @pytest.mark.parametrize(
        ("failed", "n", "bound"),
        [(0, 300, 1 - 0.05 ** (1 / 300)), (0, 1, 0.95), (1, 10, 0.39416), (10, 100, 0.16372), (5, 5, 1.0)],
    )
    def test_is_that_of_clopper_and_pearson(self, failed: int, n: int, bound: float) -> None:
        """One-sided, 95 %; without a failure it is 3/n."""
        assert upper_bound(failed, n) == pytest.approx(bound, abs=1e-4)

    def test_holds_for_many(self) -> None:
        """Nothing overflows."""
        assert upper_bound(0, 1_000_000) == pytest.approx(3e-6, rel=0.01)
        assert upper_bound(2000, 1_000_000) == pytest.approx(0.002075, rel=0.01)


class TestMoreOften:
    def test_is_fishers(self) -> None:
        """The lady tasting tea: four of four, and three of four."""
        assert more_often((0, 4), (4, 4)) == pytest.approx(1 / 70)
        assert more_often((1, 4), (3, 4)) == pytest.approx(17 / 70)
