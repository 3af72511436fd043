"""notes"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
contract_after: str | None = None


def upgrade() -> None:
    """Make the table of notes."""
    op.execute("""
        CREATE TABLE notes (
            name text PRIMARY KEY,
            text text NOT NULL,
            synthetic boolean NOT NULL DEFAULT false
        )
    """)
