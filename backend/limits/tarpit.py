"""Patience with whoever is refused: the answer comes a moment later, so that many connections get few answers."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter

__all__ = ["Tarpit"]

# A client that waits for each answer sends some two requests a second over a connection. Each waits for another time,
# as two hundred that were refused in one moment would otherwise come back in one.
SECONDS = (0.2, 0.8)
AT_ONCE = 500  # a held answer is a task and a connection; more are refused at once


class Tarpit:
    """Hold what is refused, so that refusing costs the others nothing: `/health` does not wait behind it."""

    def __init__(self) -> None:
        self._held = 0

    async def hold(self) -> float:
        """Wait for a moment, and return how long, in seconds. Return 0 at once where too many wait."""
        if self._held >= AT_ONCE:
            return 0
        self._held += 1
        began = perf_counter()
        try:
            await asyncio.sleep(random.uniform(*SECONDS))  # noqa: S311 - no secret
        finally:
            self._held -= 1
        return perf_counter() - began
