"""Ids that sort by time, so that pages can be keyed by them (RFC 9562 §5.7)."""

from __future__ import annotations

import os
import time
from uuid import UUID

__all__ = ["uuid7"]

NANOSECONDS_OF_A_MILLISECOND = 1_000_000


def uuid7() -> UUID:
    """Return a version 7 UUID: 48 bits of milliseconds, 12 bits of the fraction below, 62 random bits."""
    # PostgreSQL has `uuidv7()` since 18 and Python since 3.14; this service also supports older versions of both.
    milliseconds, rest = divmod(time.time_ns(), NANOSECONDS_OF_A_MILLISECOND)
    fraction = (rest << 12) // NANOSECONDS_OF_A_MILLISECOND
    random = int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
