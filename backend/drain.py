"""Shutdown without a failed request: first not ready, then no connection is kept alive, then the process ends."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Drain"]


@dataclass
class Drain:
    """Whether this process is draining. If so, `/ready` is 503 and each response closes its connection."""

    active: bool = False
