"""Two tiers of end-to-end tests: the gate, a story for each target that lands work, and all that can go wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["in_gate"]


def in_gate(cases: Iterable[str], chosen: str) -> list[Any]:
    """CASES, to parametrize a test with: CHOSEN is in the gate, each of them in the matrix."""
    names = list(cases)
    assert chosen in names, chosen
    return [pytest.param(name, marks=pytest.mark.gate) if name == chosen else name for name in names]
