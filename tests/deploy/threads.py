"""Work that goes on in threads while a test does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Self

__all__ = ["Working", "running"]


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


class Working:
    """What does several works while a block runs, each in a thread; each has to end once `_over` is set."""

    def __init__(self, *works: Callable[[], None]) -> None:
        self._works, self._over, self._threads = works, threading.Event(), ExitStack()

    def __enter__(self) -> Self:
        for work in self._works:
            self._threads.enter_context(running(work, self._over))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._threads.close()
