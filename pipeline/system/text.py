"""Text that has to fit into a line, or that is one."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

__all__ = ["answer_in", "digits", "duration", "figure", "now", "shorten", "size"]

LINE = 300
BEGINNING = 100
THOUSAND, UNITS = 1000, ("bytes", "kB", "MB", "GB", "TB")
TENTHS = 10  # seconds, below which a tenth of one is said
SPANS = ((120, 1, "s"), (7200, 60, "min"), (2 * 86_400, 3600, "h"))  # up to so many seconds: its unit


def shorten(text: str) -> str:
    """Return `text` in at most 300 characters: its middle goes, because the end of a message is its cause."""
    if len(text) <= LINE:
        return text
    return f"{text[:BEGINNING]} … {text[BEGINNING + 3 - LINE :]}"


def answer_in(output: str, key: str) -> Any:
    """Return what `key` has in the last line of `output` that is a JSON object with it; None where no line is one.

    Other lines are those of a log, which on Kubernetes is not kept apart.
    """
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and key in found:
            return found[key]
    return None


def figure(value: float, digits: int = 3) -> str:
    """Return `value` with so many significant digits, and never with an exponent where it is large."""
    return f"{value:.0f}" if value >= 10**digits - 0.5 else f"{value:.{digits}g}"


def now() -> str:
    """Return the time as RFC 3339 has it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def size(count: float) -> str:
    """Return a number of bytes as people write it: `2.05 MB`."""
    power = next((power for power in range(len(UNITS)) if count < THOUSAND ** (power + 1)), len(UNITS) - 1)
    return f"{figure(count / THOUSAND**power)} {UNITS[power]}"


def duration(seconds: float) -> str:
    """Return a time as people say it: `1.5 s`, `12 min`, `26 h`, `3 days`."""
    for longest, of, unit in SPANS:
        if seconds < longest:
            return (
                f"{round(seconds, 1 if seconds < TENTHS else None):g} s" if of == 1 else f"{int(seconds / of)} {unit}"
            )
    return f"{int(seconds / 86_400)} days"


def digits(secret: str | None) -> str:
    """Return a label that changes with `secret`: twelve hexadecimal digits of its hash.

    It does not reveal the secret, which is random text.
    """
    return hashlib.sha256((secret or "").encode()).hexdigest()[:12]
