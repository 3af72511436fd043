"""accounts and their sessions"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
contract_after: str | None = None  # expands only


def upgrade() -> None:
    """Make the tables of accounts and of their sessions."""
    op.execute("""
        CREATE TABLE accounts (
            id uuid PRIMARY KEY,
            name text NOT NULL CONSTRAINT accounts_name_key UNIQUE,
            role text NOT NULL
                CONSTRAINT accounts_role_check
                CHECK (role IN ('viewer', 'deployer', 'admin')),
            password_hash text NOT NULL,
            disabled_at timestamptz,
            last_login_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now()
        )
    """)
    op.execute("""
        CREATE TABLE account_sessions (
            id uuid PRIMARY KEY,
            account_id uuid NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
            family_hash bytea NOT NULL CONSTRAINT account_sessions_family_hash_key UNIQUE,
            seed bytea NOT NULL,
            current_hash bytea NOT NULL,
            previous_hash bytea,
            rotated_at timestamptz,
            user_agent text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            last_used_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL
        )
    """)
    op.execute("CREATE INDEX account_sessions_account_id_idx ON account_sessions (account_id, last_used_at DESC)")
    op.execute("CREATE INDEX account_sessions_expires_at_idx ON account_sessions (expires_at)")
