"""What undoing and recording a deploy are protected by: from signals, and from faults that come on top."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import Interrupted, SlipwayError
from pipeline.system.audience import signals_heard

__all__ = ["best_effort", "deaf", "problems_of"]

log = logging.getLogger(__name__)


def problems_of(error: Exception | Interrupted) -> tuple[str, ...]:
    """Return what is wrong, one line each; print the traceback of what no user can fix."""
    if isinstance(error, SlipwayError | Interrupted):
        return error.problems
    if isinstance(error, OSError):
        return (f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}",)
    log.info("".join(traceback.format_exception(error)))
    return (f"a fault in the pipeline itself: {type(error).__name__}: {error}",)


@contextmanager
def best_effort() -> Iterator[None]:
    """Say what the record of a deploy will lack, and go on: the outcome of the deploy is decided already."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a fault of our own is no reason either
        log.warning(f"the evidence is incomplete: {'; '.join(problems_of(error))}")


@contextmanager
def deaf() -> Iterator[None]:
    """Keep signals from interrupting undoing and recording: a second Ctrl-C is answered and has no effect."""

    def refuse(*_: object) -> None:
        log.warning("already undoing and recording; this ends by itself (kill -9 leaves it to the next deploy)")

    before = {number: signal.signal(number, refuse) for number in signals_heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
