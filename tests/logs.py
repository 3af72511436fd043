"""The pipeline's log, collected for tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["logged"]


class _Collector(logging.Handler):
    def __init__(self, lines: list[str], level: int) -> None:
        super().__init__(level)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[str]]:
    """Collect the messages of `level` and above in a list."""
    lines: list[str] = []
    logger, before = logging.getLogger("pipeline"), logging.getLogger("pipeline").level
    collector = _Collector(lines, level)
    logger.addHandler(collector)
    logger.setLevel(min(level, before or level))
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before)
