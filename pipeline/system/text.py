"""Text that has to fit into a line, or that is one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["answer_in", "digits", "figure", "shorten"]

LINE = 300
BEGINNING = 100


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


def digits(secret: str | None) -> str:
    """Return a label that changes with `secret`: twelve hexadecimal digits of its hash.

    It does not reveal the secret, which is random text.
    """
    return hashlib.sha256((secret or "").encode()).hexdigest()[:12]
