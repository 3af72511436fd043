"""Waiting by asking again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Deadline", "attempts"]

TICK_SECONDS = 0.5
STOPPED_SECONDS = 2  # a tick that is later than this: we were stopped, not merely slow


class Deadline:
    """A moment some `seconds` from now, without those in which this process was stopped: by Ctrl-Z, by a host asleep.

    A monotonic clock goes on meanwhile, at least for who is stopped alone. What was waited for had no more time.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._pauses = 0
        threading.Thread(target=self._tick, daemon=True).start()

    def left(self) -> float:
        """Return the seconds that are left; less than none when it is over."""
        return self._at - time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the block take as long as it likes."""
        began, self._pauses = time.monotonic(), self._pauses + 1
        try:
            yield
        finally:
            self._at += time.monotonic() - began
            self._pauses -= 1

    def _tick(self) -> None:
        while self.left() > 0 or self._pauses:
            before = time.monotonic()
            time.sleep(TICK_SECONDS)
            late = time.monotonic() - before - TICK_SECONDS
            if late > STOPPED_SECONDS and not self._pauses:
                self._at += late


def attempts(seconds: float | Deadline, *, every: float, watch: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Yield at once, then after each pause of `every` seconds, until an attempt ends later than `seconds` from now.

    `watch` is called before each pause, and may raise. The caller's loop returns or breaks on success, so the code
    after it runs only if there was none in time.
    """
    until = time.monotonic() + seconds if not isinstance(seconds, Deadline) else 0.0
    while True:
        yield
        left = seconds.left() if isinstance(seconds, Deadline) else until - time.monotonic()
        if left < 0:
            return
        watch()
        time.sleep(every)
