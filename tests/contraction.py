"""The steps of docs/3-migrations.md, "Expand, backfill, contract", as they are printed there: two tiers follow them.

Only their numbers and the names of their tables are the tests' own, so that they can follow any service's migrations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.pages import ROOT, blocks

__all__ = ["FILL", "MISSING", "ROWS", "Step", "page_steps"]

PAGE = ROOT / "docs/3-migrations.md"
# What the page's example takes for granted: its two tables.
TABLES = '''"""orders and prices"""

from alembic import op

revision = "0001"
down_revision = "0000"


def upgrade() -> None:
    op.execute("CREATE TABLE orders (number bigint PRIMARY KEY)")
    op.execute("CREATE TABLE prices (order_number bigint PRIMARY KEY, cents bigint NOT NULL)")
'''
FILL = (
    "INSERT INTO testing_orders (number) SELECT generate_series(1, 7)",
    "INSERT INTO testing_prices SELECT number, 100 * number FROM testing_orders",
)
MISSING = "SELECT count(*) FROM testing_orders WHERE cents IS DISTINCT FROM 100 * number"
ROWS = 7  # rows in each of the two tables


@dataclass(frozen=True)
class Step:
    """A migration: its `revision`, its name in words, and the `text` of its file."""

    revision: str
    name: str
    text: str

    def write(self, folder: Path) -> Path:
        """Write it as a file of `folder`; return the path."""
        path = folder / f"{self.revision}_{self.name.replace(' ', '_')}.py"
        path.write_text(self.text, encoding="utf-8")
        return path

    def without(self, *sayings: str) -> Step:
        """Return the same without what it says of itself by the names in `sayings`."""
        lines = [line for line in self.text.splitlines() if not line.startswith(sayings)]
        assert len(lines) == len(self.text.splitlines()) - len(sayings)
        return Step(self.revision, self.name, "\n".join(lines) + "\n")


def page_steps(newest: str) -> list[Step]:
    """Return the tables of the example and the four steps of the page, numbered as those that follow `newest`."""
    printed = [block.text for block in blocks(PAGE) if block.language == "python" and "down_revision" in block.text]
    steps = []
    for text in [TABLES, *printed]:
        own = re.sub(r"\b(orders|prices)\b", r"testing_\1", text)
        own = re.sub(r'"(\d{4})"', lambda found: f'"{int(found[1]) + int(newest):04}"', own)
        name, revision = re.findall(r'"""(.+)"""|revision = "(\d{4})"', own)[:2]
        steps.append(Step(revision[1], name[0], own))
    return steps
