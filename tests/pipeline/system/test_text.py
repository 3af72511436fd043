"""Figures as people read them."""

from __future__ import annotations

import pytest

from pipeline.system.text import duration, size


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (2048, "2.05 kB"), (5e9, "5 GB"), (7.2e15, "7200 TB")]
)
def test_size(count: float, text: str) -> None:
    """Three digits, and the unit that leaves the fewest."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0 s"),
        (1.26, "1.3 s"),
        (61.4, "61 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (90_000, "25 h"),
        (200_000, "2 days"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    """The unit that people use for so long."""
    assert duration(seconds) == text
