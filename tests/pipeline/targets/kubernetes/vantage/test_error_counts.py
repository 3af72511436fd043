"""Errors that pods count themselves, as a judgement."""

from __future__ import annotations

import pytest

from pipeline.targets.kubernetes.vantage.error_counts import Counted, Sample, against, counted

OLD, NEW, LATER = "10.0.0.1", "10.0.0.2", "10.0.0.3"
COMPLETE = 20.0


class TestCounted:
    def test_tells_old_pods_from_new_ones(self) -> None:
        """The old ones by all that was seen of them, the new ones since all were ready; who comes later is new."""
        samples = [
            Sample(0, {OLD: 100}),
            Sample(10, {OLD: 102, NEW: 7}),
            Sample(20, {NEW: 8}),
            Sample(25, {NEW: 9, LATER: 0}),
            Sample(30, {NEW: 11, LATER: 1}),
        ]
        assert counted(samples, [NEW], COMPLETE) == (Counted(2, 10), Counted(4, 15))

    def test_takes_away_what_the_vantage_got_itself(self) -> None:
        """Its requests are the proof's, which judges by itself."""
        samples = [Sample(20, {NEW: 0}, own=1), Sample(30, {NEW: 5}, own=4)]
        assert counted(samples, [NEW], COMPLETE)[1] == Counted(2, 10)

    def test_goes_on_after_a_restart(self) -> None:
        """A counter that begins anew has lost nothing that was seen."""
        samples = [Sample(20, {NEW: 9}), Sample(22, {NEW: 2}), Sample(24, {NEW: 3})]
        assert counted(samples, [NEW], COMPLETE)[1] == Counted(3, 4)

    def test_is_nothing_where_nobody_looked(self) -> None:
        """Or the name of the pods was not known yet."""
        assert counted([], [NEW], COMPLETE) == (Counted(0, 0), Counted(0, 0))


class TestAgainst:
    def test_judges_what_is_no_chance(self) -> None:
        """None before, and many now."""
        said = against(Counted(0, 60), Counted(12, 60), 0)
        assert said == (
            "its pods answered 12 requests from others with 5xx in 60 pod-seconds, by their own metrics; the release"
            " before, 0 in 60: look for them in the logs"
        )

    @pytest.mark.parametrize(
        ("old", "new", "known"),
        [
            (Counted(0, 60), Counted(3, 60), 0),  # one user with a request that always breaks
            (Counted(0, 60), Counted(12, 240), 0),  # four times as long
            (Counted(50, 60), Counted(60, 60), 0),  # it was so before
            (Counted(0, 60), Counted(12, 60), 10),  # the proof has had them
            (Counted(0, 0), Counted(12, 60), 0),  # nobody knows how it was before
            (Counted(0, 60), Counted(0, 0), 0),
        ],
    )
    def test_does_not_judge_what_may_be(self, old: Counted, new: Counted, known: int) -> None:
        """A good release must not be undone for the errors of the one before."""
        assert against(old, new, known) is None

    def test_has_a_limit_that_grows_with_what_was_before(self) -> None:
        """16 seen: up to 27 are expected, and 28 are not."""
        assert against(Counted(16, 60), Counted(27, 60), 0) is None
        assert against(Counted(16, 60), Counted(28, 60), 0) is not None
