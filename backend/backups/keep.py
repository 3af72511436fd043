"""Which backups stay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

__all__ = ["KeepRule", "kept"]

RULE = re.compile(r"(\d{1,4})([dw])")


@dataclass(frozen=True)
class KeepRule:
    """The newest backup of each of the last `days` and `weeks` that have one. At least one of them is not 0."""

    days: int = 0
    weeks: int = 0

    @classmethod
    def read(cls, text: str) -> KeepRule:
        """Return the rule that `text` is, such as `7d 4w`. Raise `ValueError` where it is none."""
        counts = {"d": 0, "w": 0}
        for word in text.split():
            match = RULE.fullmatch(word)
            if match is None or counts[match[2]] or not int(match[1]):
                raise ValueError("must be a number of days, of weeks, or both, such as `7d 4w`")
            counts[match[2]] = int(match[1])
        if not any(counts.values()):
            raise ValueError("must keep something: a number of days, of weeks, or both, such as `7d 4w`")
        return cls(counts["d"], counts["w"])

    def __str__(self) -> str:
        """Return the rule as text."""
        return " ".join(f"{count}{unit}" for count, unit in ((self.days, "d"), (self.weeks, "w")) if count)


def kept(times: Iterable[datetime], rule: KeepRule) -> set[datetime]:
    """Return those of `times`, each of a backup, that stay.

    Days and weeks without a backup do not count: where backups stop, the last ones do not grow old and leave.
    """
    newest_first = sorted(times, reverse=True)
    periods: list[tuple[int, Callable[[datetime], object]]] = [
        (rule.days, lambda time: time.date()),
        (rule.weeks, lambda time: time.isocalendar()[:2]),
    ]
    stay: set[datetime] = set()
    for count, period in periods:
        firsts = [next(group) for _, group in groupby(newest_first, key=period)]
        stay.update(firsts[:count])
    return stay
