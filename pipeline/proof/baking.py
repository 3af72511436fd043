"""For how long a release bakes: as long as it says, and longer where that tells too little."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.proof.verdict import BAKE, CONFIRM, ENOUGH, Judgement

__all__ = ["BakePlan"]

SHORTEST_SECONDS = 0.1
LONGER_SECONDS = 5.0  # by which a bake that says too little goes on, before it is judged again
SPARE = 1.1  # times as many requests as answers are lacking: one in twenty is to /health, which does not count


@dataclass(frozen=True)
class BakePlan:
    """A bake of `seconds` at `rate` requests a second, which may go on until it has lasted for `limit` seconds."""

    rate: float
    seconds: float
    limit: float

    def further(self, judgement: Judgement, phase: str, left: float) -> tuple[str, float] | None:
        """Return the phase that follows `phase`, and its seconds; None where `judgement` is the last.

        `left` seconds of the limit are not used up. A phase may follow itself.
        """
        if not judgement.more or left <= 0 or self.rate * self.limit < ENOUGH:
            return None
        if judgement.confirm and phase == BAKE:
            return CONFIRM, self.seconds
        lacking = SPARE * judgement.lacking / self.rate
        return phase, min(left, max(lacking, SHORTEST_SECONDS, min(self.seconds, LONGER_SECONDS)))
