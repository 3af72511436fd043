"""Leaving without a failed request: not ready first, then no more connections kept, then gone."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Drain"]


@dataclass
class Drain:
    """Whether this process is leaving. Then `/ready` is 503 and each response closes its connection."""

    active: bool = False
