"""One thing that stops a rollout, and the words that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "SYNC_SECONDS", "Finding", "count_of", "one_line", "times"]

# The order of telling power: what explains more comes first.
KINDS = (
    *("platform", "image", "config", "start", "oom", "crash", "quota", "limits", "admission"),
    *("claim", "unschedulable", "mount", "evicted", "probe", "node", "deadline"),
)
SYNC_SECONDS = 10  # a Secret may be on its way


@dataclass(frozen=True)
class Finding:
    """One thing that stops a rollout; `line` is cause and fix.

    `patience`: seconds after which it will not heal by itself any more; None where it may at any time.
    `wants_log`: the log of `container` of `pod` says more, that of its run before this one where `previous`.
    """

    kind: str
    line: str
    pod: str | None = None
    container: str | None = None
    patience: float | None = 0.0
    wants_log: bool = False
    previous: bool = False

    @property
    def certain(self) -> bool:
        """Whether it cannot heal within the rollout, which can stop at once."""
        return self.patience == 0


def one_line(text: str) -> str:
    """TEXT with its line breaks as spaces."""
    return " ".join(text.split())


def count_of(event: Mapping[str, Any]) -> int:
    """How often EVENT was seen."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def times(count: int) -> str:
    """That it was COUNT times, where it was more than once."""
    return f" ({count} times)" if count > 1 else ""
