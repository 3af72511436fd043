"""parcels"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
contract_after: str | None = None


def upgrade() -> None:
    """Make the table of parcels."""
    op.execute("""
        CREATE TABLE parcels (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            number text NOT NULL UNIQUE,
            status text NOT NULL,
            synthetic boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
