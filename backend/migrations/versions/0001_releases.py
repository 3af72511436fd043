"""releases and idempotency keys"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
contract_after: str | None = None  # expands only


def upgrade() -> None:
    """Make the tables of the release board."""
    op.execute("""
        CREATE TABLE releases (
            id uuid PRIMARY KEY,
            service text NOT NULL,
            environment text NOT NULL,
            version text NOT NULL,
            status text NOT NULL
                CONSTRAINT releases_status_check
                CHECK (status IN ('pending', 'deployed', 'failed', 'rolled_back')),
            commit text,
            url text,
            notes text,
            synthetic boolean NOT NULL DEFAULT false,
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE INDEX releases_newest_idx ON releases (service, environment, id DESC) WHERE NOT synthetic
    """)
    op.execute("""
        CREATE INDEX releases_running_idx ON releases (environment, service, id DESC)
        WHERE status = 'deployed' AND NOT synthetic
    """)
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
