"""Work that goes on in threads while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["running"]


@contextmanager
def running(work: Callable[[], None], over: threading.Event, *, threads: int = 1) -> Iterator[None]:
    """Do the `work` in so many `threads` while the block runs; it has to end once `over` is set."""
    started = [threading.Thread(target=work) for _ in range(threads)]
    for one in started:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in started:
            one.join()
