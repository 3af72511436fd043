"""Waiting by asking again."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol, TypeVar

__all__ = ["Deadline", "attempts", "wait_within"]

T_co = TypeVar("T_co", covariant=True)

TICK_SECONDS = 0.5
STOPPED_SECONDS = 2  # a tick that is later than this: we were stopped, not merely slow


class _Stops:
    """The seconds in which this process was stopped, as a thread sees it that ticks; they count at once."""

    def __init__(self) -> None:
        self._seen = (0.0, monotonic())  # the seconds until the last tick, and when that was
        self.over = threading.Event()
        threading.Thread(target=self._tick, daemon=True).start()

    def seconds(self) -> float:
        """Return how many there were until now: whoever wakes first after a stop need not wait for the tick."""
        total, ticked = self._seen
        late = monotonic() - ticked - TICK_SECONDS
        return total + (late if late > STOPPED_SECONDS else 0.0)

    def _tick(self) -> None:
        while not self.over.wait(TICK_SECONDS):
            self._seen = (self.seconds(), monotonic())


class Deadline:
    """A moment some `seconds` from now, without those in which this process was stopped: by Ctrl-Z, by a host asleep.

    A monotonic clock goes on meanwhile, at least for who is stopped alone. What was waited for had no more time.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._stops = _Stops()

    def left(self) -> float:
        """Return the seconds that are left; less than none when it is over."""
        return self._at + self._stops.seconds() - time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the block take as long as it likes."""
        left = self.left()
        try:
            yield
        finally:
            self._at += left - self.left()

    def __del__(self) -> None:
        self._stops.over.set()


def attempts(seconds: float | Deadline, *, every: float, watch: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Yield at once, then after each pause of `every` seconds, until an attempt ends later than `seconds` from now.

    `watch` is called before each pause, and may raise. The caller's loop returns or breaks on success, so the code
    after it runs only if there was none in time.
    """
    deadline = seconds if isinstance(seconds, Deadline) else Deadline(seconds)
    while True:
        yield
        if deadline.left() < 0:
            return
        watch()
        time.sleep(every)


class _Wait(Protocol[T_co]):
    def __call__(self, *, timeout: float | None) -> T_co: ...


def wait_within(seconds: float | None, wait: _Wait[T_co]) -> T_co:
    """Return what `wait` of a `subprocess.Popen` returns within `seconds`, without those in which we were stopped.

    It must be one that can be called again, as `wait` and `communicate` can. Raise `subprocess.TimeoutExpired` where
    time is up.
    """
    if seconds is None:
        return wait(timeout=None)
    deadline = Deadline(seconds)
    while True:
        try:
            return wait(timeout=max(deadline.left(), 0))
        except subprocess.TimeoutExpired:
            if deadline.left() <= 0:
                raise
