"""Waiting by asking again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

__all__ = ["attempts"]


def attempts(seconds: float, *, every: float, watch: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Yield at once, then after each pause of `every` seconds, until an attempt ends later than `seconds` from now.

    `watch` is called before each pause, and may raise. The caller's loop returns or breaks on success, so the code
    after it runs only if there was none in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > deadline:
            return
        watch()
        time.sleep(every)
