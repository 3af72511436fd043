"""The SQL of accounts and sessions.

Who changes an account and its sessions locks the account first, in a statement of its own: a sign-in that goes on at
the same time is then either seen by the statement after it, or finds the account changed.

A session that has ended stays until a sign-in removes it: each removes the ten that ended first, so that there are
never many more rows than sessions in use. Those of an account that is removed go with it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from backend.accounts.refresh import RefreshToken
from backend.database import Connection

__all__ = ["age", "end", "end_others", "find", "rotate", "sessions", "sign_in", "sign_out", "who"]

FIND = "SELECT id, password_hash, disabled_at FROM accounts WHERE name = $1"
# Only while the password is the one that was checked: it may have been changed since.
SIGN_IN = """
WITH account AS (
    UPDATE accounts SET last_login_at = now(), password_hash = $3
    WHERE id = $1 AND password_hash = $2 AND disabled_at IS NULL
    RETURNING id, name, role
), session AS (
    INSERT INTO account_sessions (id, account_id, family_hash, current_hash, seed, user_agent, expires_at)
    SELECT $4, id, $5, $6, $7, $8, now() + make_interval(days => $9) FROM account
    RETURNING id
)
SELECT session.id AS session, account.id AS account, name, role FROM account, session
"""
# One statement, so that of many at once the first rotates, and each after it sees what that one wrote: PostgreSQL asks
# the conditions again once it has the lock. A token that is neither in use nor was so until ten seconds ago ends the
# family: somebody else has used it.
ROTATE = """
UPDATE account_sessions AS session SET
    current_hash = CASE WHEN current_hash = $2 THEN sha256(sha256(seed || $3::bytea)) ELSE current_hash END,
    previous_hash = CASE WHEN current_hash = $2 THEN $2 ELSE previous_hash END,
    rotated_at = CASE WHEN current_hash = $2 THEN now() ELSE rotated_at END,
    last_used_at = now(),
    expires_at = CASE
        WHEN current_hash = $2 THEN now() + make_interval(days => $4)
        WHEN previous_hash = $2 AND rotated_at > now() - interval '10 seconds' THEN expires_at
        ELSE now()
    END
FROM accounts AS account
WHERE family_hash = $1 AND expires_at > now() AND account.id = account_id AND disabled_at IS NULL
RETURNING session.id AS session, account.id AS account, name, role, expires_at > now() AS alive,
    sha256(seed || $3::bytea) AS successor
"""
SIGN_OUT = "DELETE FROM account_sessions WHERE family_hash = $1 OR id = $2"
WHO = """
SELECT name, role, session.id AS session
FROM account_sessions AS session JOIN accounts AS account ON account.id = account_id
WHERE session.id = $1 AND account_id = $2 AND expires_at > now() AND disabled_at IS NULL
"""
SESSIONS = """
SELECT id, created_at, last_used_at, expires_at, user_agent FROM account_sessions
WHERE account_id = $1 AND expires_at > now() ORDER BY last_used_at DESC LIMIT 100
"""
END = "DELETE FROM account_sessions WHERE account_id = $1 AND id = $2 AND expires_at > now() RETURNING TRUE"
END_OTHERS = "DELETE FROM account_sessions WHERE account_id = $1 AND id <> $2"
# Not a part of the sign-in: with locks on rows of others it must not wait for an account.
AGE = """
DELETE FROM account_sessions WHERE id IN (
    SELECT id FROM account_sessions WHERE expires_at <= now() ORDER BY expires_at LIMIT 10 FOR UPDATE SKIP LOCKED
)
"""


async def find(connection: Connection, name: str) -> asyncpg.Record | None:
    """Return the account with this name: its id, the hash of its password, and since when it is disabled."""
    return await connection.fetchrow(FIND, name)


async def sign_in(
    connection: Connection, account: UUID, *, checked: str, keep: str, session: UUID, token: RefreshToken,
    seed: bytes, user_agent: str, days: int,
) -> asyncpg.Record | None:  # fmt: skip
    """Begin a session that ends after so many `days`, and return it with its account.

    None where the hash of the password is not the one that was `checked` any more, or the account was disabled. The
    hash to `keep` takes its place.
    """
    return await connection.fetchrow(
        SIGN_IN, account, checked, keep, session, token.family_hash, token.secret_hash, seed, user_agent, days
    )


async def age(connection: Connection) -> None:
    """Remove the ten sessions that ended first."""
    await connection.execute(AGE)


async def rotate(connection: Connection, token: RefreshToken, *, days: int) -> asyncpg.Record | None:
    """Exchange `token` for its successor, whose session then ends after so many `days`.

    Return the session, its account, the secret that is the `successor`, and whether the session is `alive`: it is not
    where the token was used before. None where there is no such session.
    """
    return await connection.fetchrow(ROTATE, token.family_hash, token.secret_hash, token.secret, days)


async def sign_out(connection: Connection, token: RefreshToken | None, session: UUID | None) -> None:
    """End the session of `token`, whether in use or not, and the `session`."""
    await connection.execute(SIGN_OUT, token.family_hash if token else None, session)


async def who(connection: Connection, session: UUID, account: UUID) -> asyncpg.Record | None:
    """Return the `account` of a `session`, or None where either has ended."""
    return await connection.fetchrow(WHO, session, account)


async def sessions(connection: Connection, account: UUID) -> list[Any]:
    """Return the sessions of `account`, at most 100, the last used first."""
    return await connection.fetch(SESSIONS, account)


async def end(connection: Connection, account: UUID, session: UUID) -> bool:
    """End a `session` of `account`, and return whether there was one."""
    return bool(await connection.fetchval(END, account, session))


async def end_others(connection: Connection, account: UUID, session: UUID) -> None:
    """End the sessions of `account`, all but one."""
    await connection.execute(END_OTHERS, account, session)
