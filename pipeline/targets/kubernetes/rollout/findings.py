"""A finding, which is one thing that stops a rollout, and the wording that all findings share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "SYNC_SECONDS", "Finding", "count_of", "one_line", "times"]

# In order of explanatory power: what explains more comes first.
KINDS = (
    *("platform", "image", "config", "start", "oom", "crash", "quota", "limits", "admission"),
    *("claim", "unschedulable", "mount", "evicted", "probe", "init", "node", "deadline"),
)
SYNC_SECONDS = 10  # a Secret may be on its way


@dataclass(frozen=True)
class Finding:
    """One thing that stops a rollout; `line` is cause and fix.

    `patience`: seconds after which it will no longer heal by itself; None where it may at any time.
    `wants_log`: the log of `container` of `pod` says more, or that of its run before where `previous`.
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
        """Whether it cannot heal within the rollout, which can then stop at once."""
        return self.patience == 0


def one_line(text: str) -> str:
    """Return `text` with its line breaks as spaces."""
    return " ".join(text.split())


def count_of(event: Mapping[str, Any]) -> int:
    """Return how often `event` was seen."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def times(count: int) -> str:
    """Return " (N times)" where `count` is more than one, otherwise an empty string."""
    return f" ({count} times)" if count > 1 else ""
