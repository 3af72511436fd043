"""Shutdown without a failed request: first not ready, then no connection is kept alive, then the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CALM_SECONDS", "LONGER_SECONDS", "Drain"]

CALM_SECONDS = 0.5  # without a request, before nobody is thought to come any more
LONGER_SECONDS = 5.0  # at most, where requests still come; the grace periods of a deploy have ten to spare
TICK_SECONDS = 0.1


@dataclass
class Drain:
    """Whether this process is draining. If so, `/ready` is 503 and each response closes its connection."""

    active: bool = False
    asked: bool = False  # a request came, other than a probe, since this was last set to False

    def end_when_calm(self, seconds: float, stop: Callable[[], None]) -> None:
        """Call `stop` after `seconds`, or where requests still come then, as soon as none has for `CALM_SECONDS`.

        On a busy host an edge may learn late that this replica drains, and what waits to be accepted when a listener
        closes is reset. A tick that comes late is no calm: the loop stood still, and who came meanwhile is yet unseen.
        """
        if not seconds:
            stop()
            return
        loop = asyncio.get_running_loop()
        last = loop.time() + seconds
        calm = 0

        def tick(due: float) -> None:
            nonlocal calm
            now = loop.time()
            calm = 0 if self.asked or now - due > TICK_SECONDS else calm + 1
            self.asked = False
            if now >= last and (calm * TICK_SECONDS >= CALM_SECONDS or now >= last + LONGER_SECONDS):
                stop()
            else:
                loop.call_later(TICK_SECONDS, tick, now + TICK_SECONDS)

        tick(loop.time())
