"""Text and tables of a report in Markdown, whatever is in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pipeline.system.progress import StageRecord

__all__ = ["code", "prose", "stages_table", "table"]

MARKUP = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)|\A[#+-]")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a row may have fewer cells than the `header`."""
    lines = [header, ["---"] * len(header), *([*map(str, row), *[""] * (len(header) - len(row))] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stages_table(stages: Sequence[StageRecord]) -> str:
    """Return the table of what each stage took and came to."""
    rows = [(stage.name, f"{stage.seconds:.1f}", stage.outcome, prose(stage.note)) for stage in stages]
    return table(("stage", "seconds", "outcome", ""), rows)


def code(text: str) -> str:
    """Return `text`, which may be any answer of a service, as code for a table cell."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split()) + "`"


def prose(text: str) -> str:
    """Return `text` as prose on one line: text between backticks stays code, and all other markup is escaped."""
    parts = re.split(r"(?<!`)`([^`]+)`(?!`)", " ".join(text.split()))  # every second part is code
    return "".join(code(part) if number % 2 else MARKUP.sub(r"\\\g<0>", part) for number, part in enumerate(parts))
