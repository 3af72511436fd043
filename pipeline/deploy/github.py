"""What GitHub Actions shows of a deploy: the job summary, an annotation and the step's outputs; nothing elsewhere.

GitHub names the files to write in variables: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.deploy.report import code, render_markdown
from pipeline.releases.model import short

__all__ = ["annotation", "chart", "publish"]

log = logging.getLogger(__name__)

LARGEST = 1024 * 1024 - 512  # bytes of a step's summary; leaves room for the line that says it was cut
COLUMNS = 60
LEAST_SHARE = 0.04  # of the chart's height: one failure in a thousand must still be visible
# By role: the colour Mermaid draws it in, and the square that stands for it in the legend (an xychart has no legend).
FAILED, NEW, OLD = ("#dc2626", "🟥"), ("#2563eb", "🟦"), ("#9ca3af", "⬜")
OTHER, NAMELESS = ("#0d9488", "🟩"), ("#ca8a04", "🟨")
OUTPUTS = ("verdict", "release", "url")
Report = dict[str, Any]


def publish(report: Report, place: str, environ: Mapping[str, str] = os.environ) -> None:
    """Append `report`, which is kept at `place`, to the files that GitHub names.

    A file that cannot be written is one line of the log.
    """
    if environ.get("GITHUB_STEP_SUMMARY"):
        _append(environ["GITHUB_STEP_SUMMARY"], render_markdown(report, picture=chart(report)), LARGEST)
    if environ.get("GITHUB_OUTPUT"):
        outputs = {name: report[name] or "" for name in OUTPUTS} | {"report": place}
        lines = [f"{name}={' '.join(str(value).split())}\n" for name, value in outputs.items()]
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
    parts = [report, *([report["rollback"]] if report["rollback"] else [])]
    bins = [entry for part in parts for entry in (part["traffic"] or {}).get("timeline", ())]
    if len(bins) < 2:  # noqa: PLR2004 - a line has two ends
        return "No traffic was sent."
    start, end = bins[0]["at"], bins[-1]["at"] + bins[-1]["seconds"]
    width = (end - start) / min(COLUMNS, round((end - start) / bins[0]["seconds"]))
    series = _series(bins, start, width, round((end - start) / width))
    top = max(max(values) for values in series.values())
    series[None] = [max(value, top * LEAST_SHARE) if value else 0.0 for value in series[None]]
    failed = sum(entry["failed"] for entry in bins)
    shown = [(name, values) for name, values in series.items() if name is not None or failed]
    roles = [_role(name, report) for name, _ in shown]
    lines = [f"    line [{', '.join(f'{value:.1f}' for value in values)}]" for _, values in shown]
    legend = [f"{square} {_called(name, report, failed)}" for (_, square), (name, _) in zip(roles, shown, strict=True)]
    marks = [
        f"{stage['name']} from {stage['at'] - start:.0f} s"
        for part in parts
        for stage in part["stages"]
        if start - 0.5 <= stage["at"] <= end
    ]
    return "\n".join(
        [
            "```mermaid",
            "---",
            "config:",
            "  xyChart: {width: 900, height: 300}",
            f"  themeVariables: {{xyChart: {{plotColorPalette: '{', '.join(colour for colour, _ in roles)}'}}}}",
            "---",
            "xychart-beta",
            f'    x-axis "seconds since the traffic began" {width / 2:.2f} --> {end - start - width / 2:.2f}',
            f'    y-axis "requests a second" 0 --> {max(math.ceil(top * 1.05), 1)}',
            *lines,
            "```",
            "",
            " · ".join(legend + marks),
        ]
    )


def _series(bins: Sequence[Report], start: float, width: float, columns: int) -> dict[str | None, list[float]]:
    """Return the requests a second in each column of `width` seconds, by the release that answered; None: failed."""
    names: dict[str | None, None] = dict.fromkeys(name for entry in bins for name in entry["answered"])
    series = {name: [0.0] * columns for name in [*names, None]}
    for entry in bins:
        column = min(int((entry["at"] + entry["seconds"] / 2 - start) / width), columns - 1)
        for name, count in [*entry["answered"].items(), (None, entry["failed"])]:
            series[name][column] += count / width
    return series


def _role(name: str | None, report: Report) -> tuple[str, str]:
    known = {None: FAILED, "": NAMELESS, report["previous"]: OLD, report["release"]: NEW}
    return FAILED if name is None else known.get(name, OTHER)


def _called(name: str | None, report: Report, failed: int) -> str:
    if name is None:
        return f"failed ({failed})"
    role = {report["previous"]: " old", report["release"]: " new"}.get(name, "")
    return f"{code(short(name))}{role}" if name else "no release named"
