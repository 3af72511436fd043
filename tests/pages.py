"""The blocks of commands in README.md, docs/ and k8s/.

tests/deploy/test_docs.py runs each as it stands, unless a line before it says what that takes:
`<!-- needs: a cluster of yours -->`.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "blocks"]

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("k8s/**/README.md")])
FENCED = re.compile(
    r"(?:^ *<!-- needs: (?P<needs>[^\n]+?) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """The text between two fences, at `line` of `page`; `needs` is empty for what can be run here."""

    page: str
    line: int
    language: str
    text: str
    needs: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return all blocks of `page`, in its order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=str(page.relative_to(ROOT)),
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            text=textwrap.dedent(match["text"]),
            needs=match["needs"] or "",
        )
        for match in FENCED.finditer(text)
    ]
