"""What GitHub Actions shows of a deploy: the job summary, an annotation, the step's outputs. Elsewhere: nothing.

GitHub says where by variables: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.deploy.report import code, render_markdown
from pipeline.releases.model import short

__all__ = ["annotation", "chart", "publish"]

LARGEST = 1024 * 1024 - 512  # bytes of a step's summary, without the line that says that it was cut
COLUMNS = 60
LEAST_SHARE = 0.04  # of the chart's height: one failure in a thousand must still be seen
# By role: what Mermaid draws it with, and the square that stands for it in the legend (an xychart has none).
FAILED, NEW, OLD = ("#dc2626", "🟥"), ("#2563eb", "🟦"), ("#9ca3af", "⬜")
OTHER, NAMELESS = ("#0d9488", "🟩"), ("#ca8a04", "🟨")
OUTPUTS = ("verdict", "release", "url")
Report = dict[str, Any]


def publish(report: Report, place: str, warn: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> None:
    """Append REPORT, which is kept at PLACE, to the files that GitHub names; WARN says which could not be written."""
    if environ.get("GITHUB_STEP_SUMMARY"):
        _append(environ["GITHUB_STEP_SUMMARY"], render_markdown(report, picture=chart(report)), LARGEST, warn)
    if environ.get("GITHUB_OUTPUT"):
        outputs = {name: report[name] or "" for name in OUTPUTS} | {"report": place}
        lines = [f"{name}={' '.join(str(value).split())}\n" for name, value in outputs.items()]
        _append(environ["GITHUB_OUTPUT"], "".join(lines), None, warn)


def annotation(title: str, text: str, environ: Mapping[str, str] = os.environ) -> str:
    """The line that makes TEXT an error of the run's page; none outside of GitHub Actions."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return ""
    for sign, written in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        title, text = title.replace(sign, written), text.replace(sign, written)
    return f"::error title={title.replace(':', '%3A').replace(',', '%2C')}::{text}\n"


def _append(name: str, text: str, limit: int | None, warn: Callable[[str], None]) -> None:
    path = Path(name)
    try:
        if limit is not None:
            text = _cut(text, limit - (path.stat().st_size if path.exists() else 0))
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        warn(f"GitHub does not get what it asks for: {name}: {error.strerror}")


def _cut(text: str, limit: int) -> str:
    """As many whole lines of TEXT as LIMIT bytes hold; a block that is left open would swallow what comes after."""
    whole = text.encode()
    if len(whole) <= limit:
        return text
    kept = whole[: max(limit, 0)].decode(errors="ignore").rpartition("\n")[0]
    fence = "\n```" if kept.count("```") % 2 else ""
    return f"{kept}{fence}\n\nGitHub shows 1 MiB: the rest is in `report.md`, an artifact of the run.\n"


def chart(report: Report) -> str:
    """The traffic of REPORT as a Mermaid chart with its legend, in Markdown. Only numbers of ours are in the chart."""
    told = [report, *([report["rollback"]] if report["rollback"] else [])]
    bins = [one for part in told for one in (part["traffic"] or {}).get("timeline", ())]
    if len(bins) < 2:  # noqa: PLR2004 - a line has two ends
        return "No traffic was sent."
    start, end = bins[0]["at"], bins[-1]["at"] + bins[-1]["seconds"]
    width = (end - start) / min(COLUMNS, round((end - start) / bins[0]["seconds"]))
    series = _series(bins, start, width, round((end - start) / width))
    top = max(max(values) for values in series.values())
    series[None] = [max(value, top * LEAST_SHARE) if value else 0.0 for value in series[None]]
    failed = sum(one["failed"] for one in bins)
    shown = [(name, values) for name, values in series.items() if name is not None or failed]
    roles = [_role(name, report) for name, _ in shown]
    lines = [f"    line [{', '.join(f'{value:.1f}' for value in values)}]" for _, values in shown]
    legend = [f"{square} {_called(name, report, failed)}" for (_, square), (name, _) in zip(roles, shown, strict=True)]
    marks = [
        f"{stage['name']} from {stage['at'] - start:.0f} s"
        for part in told
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
    """Requests a second in each column of WIDTH seconds: by the release that answered, and under None what failed."""
    names: dict[str | None, None] = dict.fromkeys(name for one in bins for name in one["answered"])
    series = {name: [0.0] * columns for name in [*names, None]}
    for one in bins:
        column = min(int((one["at"] + one["seconds"] / 2 - start) / width), columns - 1)
        for name, count in [*one["answered"].items(), (None, one["failed"])]:
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
