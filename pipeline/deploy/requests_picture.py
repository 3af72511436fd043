"""`requests.svg`: how many times as slow each request is as before, with its interval: a forest plot."""

from __future__ import annotations

import math
from collections.abc import Callable

from pipeline.deploy.timeline import WIDTH, card, words
from pipeline.proof.comparison import Compared, Comparison
from pipeline.system.text import figure

__all__ = ["drawn", "requests_svg"]

TOP, ROW, LEFT, RIGHT = 84, 24, 250, 230  # px; the margins hold the names and the milliseconds
LONGEST_NAME = 36  # characters
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # times as slow


def drawn(comparison: Comparison) -> list[Compared]:
    """Return the requests that the picture has: those that were compared."""
    return [one for one in comparison.requests if one.effect]


def requests_svg(comparison: Comparison, *, title: str) -> str:
    """Return the picture of `comparison`; "" where no request was compared."""
    rows = drawn(comparison)
    if not rows:
        return ""
    values = [
        value for one in rows if one.effect for value in (one.effect.ratio, one.effect.low, one.effect.high) if value
    ]
    least = max((tick for tick in TICKS if tick <= min(0.5, *values)), default=TICKS[0])
    most = min((tick for tick in TICKS if tick >= max(2, *values)), default=TICKS[-1])

    def x(value: float) -> float:
        share = math.log(min(max(value, least), most) / least) / math.log(most / least)
        return LEFT + share * (WIDTH - RIGHT - LEFT)

    bottom = TOP + ROW * len(rows)
    body = []
    for tick in TICKS:
        if least <= tick <= most:
            style = "mark" if tick == 1 else "grid"
            body.append(f'<line class="{style}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
            body.append(words(x(tick), bottom + 16, f"{tick:g} ×", "soft middle"))
    for number, one in enumerate(rows):
        body += _row(one, TOP + ROW * number + ROW / 2, x)
    subtitle = "Times as slow as the release before (median), with the 95 % interval; left of 1 it is faster"
    return card(title, subtitle, bottom + 28, body)


def _row(one: Compared, y: float, x: Callable[[float], float]) -> list[str]:
    assert one.effect
    assert one.old
    assert one.new
    effect, style = one.effect, "failed" if one.slow else "other" if one.unsure else "new"
    name = one.request if len(one.request) <= LONGEST_NAME else f"{one.request[: LONGEST_NAME - 1]}…"
    parts = [words(LEFT - 12, y + 4, name, "end")]
    if effect.low and effect.high:
        left, width = x(effect.low), max(x(effect.high) - x(effect.low), 1.0)
        parts.append(f'<rect class="{style}" x="{left:.1f}" y="{y - 1:.1f}" width="{width:.1f}" height="2"/>')
    parts.append(f'<circle class="{style}" cx="{x(effect.ratio):.1f}" cy="{y:.1f}" r="4.5"/>')
    said = f"{figure(effect.ratio, 2)} ×: {figure(one.old.p50 or 0)} → {figure(one.new.p50 or 0)} ms"
    parts.append(words(WIDTH - RIGHT + 16, y + 4, said, "strong" if one.slow else ""))
    return parts
