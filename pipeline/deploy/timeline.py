"""`timeline.svg`: a rollout as one picture, drawn without a library so that it needs nothing and reads anywhere.

It shows requests a second by answering release with failures in red on top, the latency below them, and stages as
vertical lines. The card has its own background, so it is legible on light and on dark pages.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from pipeline.proof.report import Mark, Report
from pipeline.proof.results import Bin
from pipeline.releases.model import short

__all__ = ["CHARACTER", "WIDTH", "Timeline", "card", "timeline_svg", "words"]

WIDTH, LEFT, RIGHT = 960, 64, 164  # px; the right margin holds the legend and the label of a mark at the very end
REQUESTS_HEIGHT, LATENCY_HEIGHT, GAP = 190, 90, 34
LANE, LABEL_TOP, ROW = 15, 76, 18
CHARACTER = 6.4  # px, the largest average width among common system fonts at 11 px
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800)  # s
LONGEST_LABEL = 20  # characters
STACK = ["old", "other", "new", "nameless"]  # bottom to top: old below, new above it
STYLE = """
svg { --card: #ffffff; --ink: #1f2937; --soft: #6b7280; --grid: #e5e7eb; --edge: #d1d5db; --mark: #9ca3af;
  --new: #2563eb; --old: #94a3b8; --other: #0d9488; --nameless: #d6c7a1; --failed: #dc2626;
  --p50: #0d9488; --p95: #b45309 }
@media (prefers-color-scheme: dark) { svg { --card: #111827; --ink: #f3f4f6; --soft: #9ca3af; --grid: #263143;
  --edge: #374151; --mark: #6b7280; --new: #60a5fa; --old: #64748b; --other: #2dd4bf; --nameless: #8a7b54;
  --failed: #f87171; --p50: #2dd4bf; --p95: #fbbf24 } }
text { font: 11px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink) }
.card { fill: var(--card); stroke: var(--edge) } .title { font-size: 16px } .title, .strong { font-weight: 600 }
.soft { fill: var(--soft) } .end { text-anchor: end }
.middle { text-anchor: middle } .grid { stroke: var(--grid) } .mark { stroke: var(--mark); stroke-dasharray: 3 3 }
.new { fill: var(--new) } .old { fill: var(--old) } .other { fill: var(--other) } .nameless { fill: var(--nameless) }
.failed { fill: var(--failed) } .line { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.p50 { stroke: var(--p50) } .p95 { stroke: var(--p95) }
"""


@dataclass(frozen=True)
class Timeline:
    """What any picture of a deploy shows: its traffic, then its rollback's, by answering release; and `marks`.

    `role` and `label` take the name of a release, "" for answers that name none and None for failed requests.
    """

    bins: Sequence[Bin]  # ascending
    marks: Sequence[Mark]
    new: str | None
    old: str | None

    @classmethod
    def of(cls, report: Report, *more: Mark) -> Timeline:
        """Return the timeline of `report`, which marks where each stage begins, and `more`."""
        parts = (report, report.rollback) if report.rollback else (report,)
        bins = [entry for part in parts if part.traffic for entry in part.traffic.timeline]
        marks = [Mark(stage.at, stage.name) for part in parts for stage in part.stages]
        return cls(bins, [*marks, *more], report.release, report.previous)

    @property
    def start(self) -> float:
        """When the traffic began."""
        return self.bins[0].at

    @property
    def end(self) -> float:
        """When it was over."""
        return self.bins[-1].at + self.bins[-1].seconds

    @property
    def failed(self) -> int:
        """The requests without a correct answer."""
        return sum(entry.failed for entry in self.bins)

    @property
    def releases(self) -> list[str]:
        """Those that answered, in the order in which they first did."""
        return list(dict.fromkeys(name for entry in self.bins for name in entry.answered))

    def marks_inside(self) -> list[Mark]:
        """Return the marks that fall into the time of the traffic, in order."""
        # Half a second of grace: the stage that started the traffic began a little before its first request.
        inside = [mark for mark in self.marks if self.start - 0.5 <= mark.at <= self.end]
        return sorted(inside, key=lambda mark: mark.at)

    def role(self, release: str | None) -> str:
        """Return what `release` is to the deploy: old, new, other, nameless or failed."""
        roles = {self.old: "old", self.new: "new", "": "nameless", None: "failed"}
        return roles.get(release, "other")

    def label(self, release: str | None, quoted: Callable[[str], str] = str) -> str:
        """Return the words that a legend has for `release`, with its name as `quoted` writes it."""
        match self.role(release):
            case "failed":
                return f"failed ({self.failed})"
            case "nameless":
                return "no release named"
            case "other":
                return quoted(short(release))
            case role:
                return f"{quoted(short(release))} {role}"


@dataclass(frozen=True)
class _Frame:
    """The mapping of time to the picture: `start` to `end` in seconds since the Unix epoch, panels from `top` (px)."""

    start: float
    end: float
    top: float

    @property
    def right(self) -> float:
        return WIDTH - RIGHT

    @property
    def requests_bottom(self) -> float:
        return self.top + REQUESTS_HEIGHT

    @property
    def latency_top(self) -> float:
        return self.requests_bottom + GAP

    @property
    def bottom(self) -> float:
        return self.latency_top + LATENCY_HEIGHT

    def x(self, at: float) -> float:
        return LEFT + (at - self.start) / (self.end - self.start) * (self.right - LEFT)


def timeline_svg(timeline: Timeline, *, title: str, subtitle: str) -> str:
    """Return the picture of `timeline`, with the marks that fall into the time of the traffic."""
    if not timeline.bins:
        return card(title, subtitle, 120, [words(LEFT, 96, "No traffic was sent.", "soft")])
    start, end = timeline.start, timeline.end
    labels = _lanes([(_x(mark, start, end), mark.name) for mark in timeline.marks_inside()])
    lanes = 1 + max((lane for _, _, lane in labels), default=-1)
    frame = _Frame(start, end, top=LABEL_TOP + lanes * LANE + 14)
    body = [*_time_axis(frame), *_requests(frame, timeline), *_latency(frame, timeline.bins), *_marks(frame, labels)]
    return card(title, subtitle, frame.bottom + 44, body)


def _x(mark: Mark, start: float, end: float) -> float:
    return max(_Frame(start, end, 0).x(mark.at), LEFT)


def _lanes(marks: Sequence[tuple[float, str]]) -> list[tuple[float, str, int]]:
    """Return each of the `marks`, which are ascending, with its label and the label's row (0 is the top one)."""
    # A label goes below every row that still has text at its x, so it overlaps no other label, and its line, which
    # runs down from it, crosses none.
    ends: list[float] = []
    placed = []
    for x, name in marks:
        label = name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
        lane = 1 + max((index for index, end in enumerate(ends) if end > x), default=-1)
        ends[lane:] = [x + 8 + CHARACTER * len(label)]
        placed.append((x, label, lane))
    return placed


def _marks(frame: _Frame, labels: Sequence[tuple[float, str, int]]) -> list[str]:
    parts = []
    for x, label, lane in labels:
        y = LABEL_TOP + lane * LANE
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{frame.bottom:.0f}"/>')
        parts.append(words(x + 4, y + 10, label))
    return parts


def _requests(frame: _Frame, timeline: Timeline) -> list[str]:
    names = sorted(timeline.releases, key=lambda name: STACK.index(timeline.role(name)))
    most = max((sum(entry.answered.values()) + entry.failed) / entry.seconds for entry in timeline.bins)
    top = _ceiling(most * 1.05)
    scale = REQUESTS_HEIGHT / top
    parts = _value_axis(frame.right, frame.requests_bottom, [(value, value * scale) for value in (0, top / 2, top)])
    for entry in timeline.bins:
        left, right = frame.x(entry.at), frame.x(entry.at + entry.seconds)
        width = right - left - (1 if right - left > 4 else 0)  # noqa: PLR2004 - px; a gap between bars that are wide enough
        base = frame.requests_bottom
        for name in names:
            height = entry.answered.get(name, 0) / entry.seconds * scale
            base -= height
            parts += [_box(left, base, width, height, timeline.role(name))] if height else []
        if entry.failed:
            # One failure in a thousand must still be visible.
            height = max(entry.failed / entry.seconds * scale, 4.0)
            parts.append(_box(left, base - height, width, height, "failed"))
    legend = [(timeline.role(name), timeline.label(name)) for name in (None, *reversed(names))]
    return parts + _legend(frame, frame.top + 8, "requests a second", legend)


def _latency(frame: _Frame, bins: Sequence[Bin]) -> list[str]:
    known = [entry for entry in bins if entry.p95]
    most = max((entry.p95 for entry in bins if entry.p95), default=10.0)
    decades = max(1, math.ceil(math.log10(max(most, 1.0))))
    scale = LATENCY_HEIGHT / decades
    parts = _value_axis(frame.right, frame.bottom, [(10**power, power * scale) for power in range(decades + 1)])
    for key in ("p95", "p50"):
        for run in _runs(known):
            points = [
                f"{frame.x(at):.1f},{frame.bottom - math.log10(max(getattr(entry, key), 1.0)) * scale:.1f}"
                for entry in run
                for at in (entry.at, entry.at + entry.seconds)
            ]
            parts.append(f'<polyline class="line {key}" points="{" ".join(points)}"/>')
    x, y = frame.right + 16, frame.latency_top + 8
    parts.append(words(x, y, "latency, ms", "strong"))
    for row, (key, name) in enumerate((("p95", "p95"), ("p50", "p50 (median)")), start=1):
        middle = y - 4 + row * ROW
        parts.append(f'<line class="line {key}" x1="{x}" x2="{x + 12}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        parts.append(words(x + 18, y + row * ROW, name))
    return parts


def _runs(bins: Sequence[Bin]) -> list[list[Bin]]:
    """Split `bins` where nothing was measured for a while, so that no line is drawn across the gap."""
    runs = [[*bins[:1]]]
    for before, entry in pairwise(bins):
        if entry.at - before.at > before.seconds * 1.5:
            runs.append([])
        runs[-1].append(entry)
    return runs


def _time_axis(frame: _Frame) -> list[str]:
    length = frame.end - frame.start
    step = next((step for step in STEPS if length / step <= 12), 3600)  # noqa: PLR2004 - as many labels as fit
    parts = []
    for seconds in range(0, math.floor(length) + 1, step):
        x = frame.x(frame.start + seconds)
        label = f"{seconds} s" if length < 120 else f"{seconds // 60}:{seconds % 60:02}"  # noqa: PLR2004 - two minutes
        parts.append(words(x, frame.bottom + 16, label, "soft middle"))
    parts.append(words(LEFT, frame.bottom + 32, "time since the traffic began", "soft"))
    return parts


def _value_axis(right: float, bottom: float, values: Sequence[tuple[float, float]]) -> list[str]:
    parts = []
    for value, height in values:
        y = bottom - height
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(words(LEFT - 8, y + 4, f"{value:g}", "soft end"))
    return parts


def _legend(frame: _Frame, y: float, title: str, entries: Sequence[tuple[str, str]]) -> list[str]:
    x = frame.right + 16
    parts = [words(x, y, title, "strong")]
    for row, (style, name) in enumerate(entries, start=1):
        parts.append(_box(x, y - 10 + row * ROW, 12, 12, style))
        parts.append(words(x + 18, y + row * ROW, name))
    return parts


def _ceiling(value: float) -> float:
    """Return the next round number that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(max(value, 1.0)))
    return next(factor * power for factor in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if factor * power >= value)


def _box(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect class="{style}" x="{x:.2f}" y="{y:.2f}" width="{max(width, 0.5):.2f}" height="{height:.2f}"/>'


def words(x: float, y: float, text: str, style: str = "") -> str:
    """Return `text` at a point of a picture, in the CSS classes of `style`."""
    attribute = f' class="{style}"' if style else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' if text else ""


def card(title: str, subtitle: str, height: float, body: Sequence[str]) -> str:
    """Return a whole picture of `height` px with its title and the elements in `body`."""
    lines = textwrap.wrap(subtitle, width=int((WIDTH - 48) / CHARACTER), max_lines=2, placeholder=" …")
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" {size}>',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(subtitle)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>',
        words(24, 30, title, "title"),
        *(words(24, 50 + 15 * row, line, "soft") for row, line in enumerate(lines)),
        *body,
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"
