"""Text that has to fit into a line."""

from __future__ import annotations

__all__ = ["figure", "shorten"]

LINE = 300
BEGINNING = 100


def shorten(text: str) -> str:
    """Return `text` in at most 300 characters: its middle goes, because the end of a message is its cause."""
    if len(text) <= LINE:
        return text
    return f"{text[:BEGINNING]} … {text[BEGINNING + 3 - LINE :]}"


def figure(value: float, digits: int = 3) -> str:
    """Return `value` with so many significant digits, and never with an exponent where it is large."""
    return f"{value:.0f}" if value >= 10**digits - 0.5 else f"{value:.{digits}g}"
