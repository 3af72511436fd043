"""A rollback in the place of a deploy that serves: why, and that it still does."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import SlipwayError
from pipeline.releases.records import Records

__all__ = ["Instead", "Superseded", "superseded"]


class Superseded(SlipwayError):
    """Another deploy serves by now."""


@dataclass(frozen=True)
class Instead:
    """The deploy `number` is to be replaced, for `reason`."""

    number: int
    reason: str

    def check(self, records: Records) -> None:
        """Raise `Superseded` where another deploy serves; only correct while the environment's lock is held."""
        serving = records.serving()
        if serving is None or serving.number != self.number:
            raise Superseded(superseded(serving.number if serving else None))


def superseded(number: int | None) -> str:
    """Return in words that deploy `number` serves in the place of the one that was watched."""
    return f"deploy {number} serves by now" if number else "nothing serves any more"
