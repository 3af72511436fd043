"""Which backups stay."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from backend.backups.keep import KeepRule, kept

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def _times(seed: int) -> list[datetime]:
    """Some times, with gaps and several a day."""
    chance = random.Random(seed)
    return [NOON - timedelta(hours=chance.randrange(24 * 60)) for _ in range(chance.randrange(1, 80))]


class TestRule:
    @pytest.mark.parametrize("text", ["7d 4w", "1d", "12w"])
    def test_reads_what_it_writes(self, text: str) -> None:
        """A number of days, of weeks, or both."""
        assert str(KeepRule.read(text)) == text

    @pytest.mark.parametrize("text", ["", "0d", "7", "7d 7d", "4m", "-1d", "7d,4w", "0d 1w"])
    def test_refuses_what_keeps_nothing_or_means_nothing(self, text: str) -> None:
        """The line says what a rule looks like."""
        with pytest.raises(ValueError, match="7d 4w"):
            KeepRule.read(text)


class TestKept:
    def test_the_newest_of_each_day_and_week(self) -> None:
        """Of two backups on a day the newer one stays; of a week, its last."""
        hours = [0, 3, 24, 27, 24 * 9, 24 * 40]
        times = [NOON - timedelta(hours=one) for one in hours]
        assert kept(times, KeepRule(days=2)) == {times[0], times[2]}
        assert kept(times, KeepRule(weeks=2)) == {times[0], times[4]}  # 28 November 2026 is a Saturday
        assert kept(times, KeepRule(days=1, weeks=3)) == {times[0], times[4], times[5]}

    @pytest.mark.parametrize("seed", range(200))
    def test_always_holds(self, seed: int) -> None:
        """The newest stays; the rest again changes nothing; no more than the rule says; each period's is its newest."""
        chance, times = random.Random(seed), _times(seed)
        rule = KeepRule(chance.randrange(1, 9), chance.randrange(5))
        stay = kept(times, rule)
        assert max(times) in stay
        assert stay <= set(times)
        assert kept(stay, rule) == stay
        assert len(stay) <= rule.days + rule.weeks
        days = {time.date() for time in times}
        assert {time.date() for time in stay} >= {*sorted(days)[-rule.days :]}
        for time in stay:
            same_day = [one for one in times if one.date() == time.date()]
            same_week = [one for one in times if one.isocalendar()[:2] == time.isocalendar()[:2]]
            assert time in (max(same_day), max(same_week))

    @pytest.mark.parametrize("seed", range(50))
    def test_does_not_depend_on_how_often_it_was_asked(self, seed: int) -> None:
        """To prune after each backup leaves what pruning once at the end does."""
        times, rule = sorted(set(_times(seed))), KeepRule(7, 4)
        one_by_one: set[datetime] = set()
        for time in times:
            one_by_one = kept({*one_by_one, time}, rule)
        assert one_by_one == kept(times, rule)

    def test_of_none_are_none(self) -> None:
        """There is nothing to keep."""
        assert kept([], KeepRule(7, 4)) == set()
