"""idempotency keys"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
contract_after: str | None = None  # expands only


def upgrade() -> None:
    """Make the table of the answers that were given under an Idempotency-Key."""
    op.execute("""
        CREATE TABLE idempotency_keys (
            id bytea PRIMARY KEY,
            fingerprint bytea NOT NULL,
            status bigint NOT NULL,
            body bytea NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at)")
