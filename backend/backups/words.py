"""Numbers as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["in_bytes", "rate"]

STEP = 1000.0


def in_bytes(count: float) -> str:
    """Return `count` bytes as text: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= STEP
    return f"{count:.1f} TB"


def rate(count: float, since: datetime) -> str:
    """Return how fast `count` bytes were dealt with `since` then."""
    seconds = max((datetime.now(UTC) - since).total_seconds(), 0.001)
    return f"{seconds:.1f} s, {in_bytes(count / seconds)}/s"
