"""When a bake goes on, and for how long."""

from __future__ import annotations

import pytest

from pipeline.proof.baking import BakePlan
from pipeline.proof.verdict import BAKE, CONFIRM, Judgement

PLAN = BakePlan(rate=50, seconds=4, limit=60)
SURE = Judgement(ok=True, reason="none failed")
SLOW = Judgement(ok=True, reason="slow?", more="slow?", confirm=True)
UNSURE = Judgement(ok=True, reason="noise?", more="noise?")
FEW = Judgement(ok=True, reason="few", more="few", lacking=200)


class TestFurther:
    @pytest.mark.parametrize(
        ("judgement", "phase", "left", "further"),
        [
            (SURE, BAKE, 56, None),
            (SLOW, BAKE, 56, (CONFIRM, 4)),
            (SLOW, CONFIRM, 52, (CONFIRM, 4)),  # what was hardly sent again
            (UNSURE, BAKE, 56, (BAKE, 4)),
            (FEW, BAKE, 56, (BAKE, pytest.approx(4.4))),  # as long as the lacking answers take
            (FEW, BAKE, 2, (BAKE, 2)),
            (FEW, BAKE, 0, None),
        ],
    )
    def test_is_as_long_as_it_has_to_be(
        self, judgement: Judgement, phase: str, left: float, further: tuple[str, float] | None
    ) -> None:
        """And no longer than it may be."""
        assert PLAN.further(judgement, phase, left) == further

    def test_of_a_long_bake_is_short(self) -> None:
        """It is judged again every few seconds."""
        assert BakePlan(rate=50, seconds=120, limit=1200).further(UNSURE, BAKE, 1080) == (BAKE, 5)

    def test_waits_for_nothing_that_cannot_come(self) -> None:
        """A request a second is no evidence within a minute."""
        assert BakePlan(rate=1, seconds=1, limit=60).further(FEW, BAKE, 59) is None
