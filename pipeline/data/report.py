"""The report of a backup, a restore, a drill or an upgrade: `report.json`, and `report.md` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.system.files import write_whole
from pipeline.system.markdown import code, prose, stages_table, table
from pipeline.system.progress import StageRecord
from pipeline.system.text import size

__all__ = ["SCHEMA", "DataReport", "Kind", "write_report"]

SCHEMA = "slipway.data/1"
Kind = Literal["backup", "restore", "drill", "upgrade"]


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What became of a story about data, in the names and the order of `report.json`; times are RFC 3339.

    `said` tells it in a sentence. `backup` is the summary of the one that was made or used; `facts` are what only its
    kind has, beside the rest in the document.
    """

    kind: Kind
    environment: str
    target: str
    number: int
    verdict: str  # done, proved, declined, undone, failed, interrupted
    said: str
    reason: str | None
    started: str
    finished: str | None  # None: it was killed, and a later one wrote this
    seconds: float | None  # from `started` to `finished`, by a clock that nobody sets
    backup: Mapping[str, Any] | None
    stages: Sequence[StageRecord] = ()
    remarks: Sequence[str] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        values = asdict(self)
        facts = values.pop("facts")
        document: dict[str, Any] = json.loads(json.dumps({"schema": SCHEMA, **values, **facts}))
        return document


def write_report(folder: Path, report: DataReport) -> None:
    """Write both files into `folder`, each whole or not at all."""
    write_whole(folder / "report.md", _markdown(report))
    # Last: it completes the record.
    write_whole(folder / "report.json", json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n")


def _markdown(report: DataReport) -> str:
    backup = report.backup
    rows = [
        ("number", str(report.number)),
        ("environment", f"{report.environment} ({report.target})"),
        ("started", report.started),
        ("finished", report.finished or "it was killed"),
        *([("backup", code(backup["name"])), ("its data is of", backup["snapshot"])] if backup else []),
        *([("its size", size(backup["bytes"]))] if backup else []),
        *((name.replace("_", " "), code(str(value))) for name, value in report.facts.items() if _plain(value)),
    ]
    tables = backup["tables"] if backup else []
    parts = [
        f"# {prose(report.said)}",
        table(("", ""), rows),
        *(f"Remark: {prose(line)}." for line in report.remarks),
        "## Stages",
        stages_table(report.stages),
        *(["## Tables", table(("table", "rows"), [(code(one["name"]), one["rows"]) for one in tables])]),
    ]
    return "\n\n".join(parts if tables else parts[:-2]) + "\n"


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
