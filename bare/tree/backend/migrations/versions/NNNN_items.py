"""items"""

from __future__ import annotations

from alembic import op

revision = "NNNN"
down_revision = "NNNN"
contract_after: str | None = None  # expands only


def upgrade() -> None:
    """Make the table of items."""
    op.execute("""
        CREATE TABLE items (
            id uuid PRIMARY KEY,
            name text NOT NULL,
            synthetic boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX items_newest_idx ON items (id DESC) WHERE NOT synthetic")
