"""What GitHub Actions shows of a deploy: the job summary, an annotation and the step's outputs; nothing elsewhere.

GitHub names the files to write in variables: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.deploy.evidence import render_markdown
from pipeline.deploy.timeline import Timeline
from pipeline.proof.report import Report

__all__ = ["annotation", "chart", "publish"]

from pipeline.system.markdown import code

log = logging.getLogger(__name__)

LARGEST = 1024 * 1024 - 512  # bytes of a step's summary; leaves room for the line that says it was cut
COLUMNS = 60
LEAST_SHARE = 0.04  # of the chart's height: one failure in a thousand must still be visible
# By role: the colour Mermaid draws it in, and the square that stands for it in the legend (an xychart has no legend).
COLOURS = {
    "failed": ("#dc2626", "🟥"),
    "new": ("#2563eb", "🟦"),
    "old": ("#9ca3af", "⬜"),
    "other": ("#0d9488", "🟩"),
    "nameless": ("#ca8a04", "🟨"),
}


def publish(report: Report, place: str, environ: Mapping[str, str] = os.environ, *, listen: bool = False) -> None:
    """Append `report`, which is kept at `place`, to the files that GitHub names.

    `listen`: the output `watch` has its number, for the job that listens. A file that cannot be written is one line of
    the log.
    """
    if environ.get("GITHUB_STEP_SUMMARY"):
        _append(environ["GITHUB_STEP_SUMMARY"], render_markdown(report, picture=chart(report)), LARGEST)
    if environ.get("GITHUB_OUTPUT"):
        outputs = {"verdict": report.verdict, "release": report.release or "", "url": report.url, "report": place}
        outputs["watch"] = str(report.number) if listen else ""
        lines = [f"{name}={' '.join(value.split())}\n" for name, value in outputs.items()]
        _append(environ["GITHUB_OUTPUT"], "".join(lines), None)


def annotation(title: str, text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the line that shows `text` as an error on the run's page, or "" outside GitHub Actions."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return ""
    for sign, written in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        title, text = title.replace(sign, written), text.replace(sign, written)
    return f"::error title={title.replace(':', '%3A').replace(',', '%2C')}::{text}\n"


def _append(name: str, text: str, limit: int | None) -> None:
    path = Path(name)
    try:
        if limit is not None:
            text = _cut(text, limit - (path.stat().st_size if path.exists() else 0))
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        log.warning(f"could not write the file that GitHub Actions reads: {name}: {error.strerror}")


def _cut(text: str, limit: int) -> str:
    """Return as many whole lines of `text` as fit into `limit` bytes."""
    whole = text.encode()
    if len(whole) <= limit:
        return text
    kept = whole[: max(limit, 0)].decode(errors="ignore").rpartition("\n")[0]
    # A code block that is left open would swallow what comes after it.
    fence = "\n```" if kept.count("```") % 2 else ""
    return f"{kept}{fence}\n\nGitHub shows at most 1 MiB: the rest is in `report.md`, an artifact of the run.\n"


def chart(report: Report) -> str:
    """Return the traffic of `report` as a Mermaid chart with its legend, in Markdown.

    Only numbers of our own go into the chart; the names are in the legend.
    """
    timeline = Timeline.of(report)
    bins = timeline.bins
    if len(bins) < 2:  # noqa: PLR2004 - a line has two ends
        return "No traffic was sent."
    length = timeline.end - timeline.start
    width = length / min(COLUMNS, round(length / bins[0].seconds))
    series = _series(timeline, width, round(length / width))
    top = max(max(values) for values in series.values())
    failed = [max(value, top * LEAST_SHARE) if value else 0.0 for value in series.pop(None)]
    if timeline.failed:
        series[None] = failed
    roles = [COLOURS[timeline.role(name)] for name in series]
    lines = [f"    line [{', '.join(f'{value:.1f}' for value in values)}]" for values in series.values()]
    legend = [f"{square} {timeline.label(name, code)}" for (_, square), name in zip(roles, series, strict=True)]
    marks = [f"{mark.name} from {mark.at - timeline.start:.0f} s" for mark in timeline.marks_inside()]
    return "\n".join(
        [
            "```mermaid",
            "---",
            "config:",
            "  xyChart: {width: 900, height: 300}",
            f"  themeVariables: {{xyChart: {{plotColorPalette: '{', '.join(colour for colour, _ in roles)}'}}}}",
            "---",
            "xychart-beta",
            f'    x-axis "seconds since the traffic began" {width / 2:.2f} --> {length - width / 2:.2f}',
            f'    y-axis "requests a second" 0 --> {max(math.ceil(top * 1.05), 1)}',
            *lines,
            "```",
            "",
            " · ".join(legend + marks),
        ]
    )


def _series(timeline: Timeline, width: float, columns: int) -> dict[str | None, list[float]]:
    """Return the requests a second in each column of `width` seconds, by the release that answered; None: failed."""
    series = {name: [0.0] * columns for name in [*timeline.releases, None]}
    for entry in timeline.bins:
        column = min(int((entry.at + entry.seconds / 2 - timeline.start) / width), columns - 1)
        for name, count in [*entry.answered.items(), (None, entry.failed)]:
            series[name][column] += count / width
    return series
