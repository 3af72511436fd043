"""`Idempotency-Key`: a repeated request gets the first answer again and is carried out once.

The answer is stored in the transaction of the write, so an acknowledged write cannot be half there, and a crash leaves
no key behind. (draft-ietf-httpapi-idempotency-key-header-07)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from backend.database import Connection
from backend.problems import Problem

__all__ = ["Answer", "IdempotencyConflict", "IdempotencyKeyReused", "Request", "first_answer", "remember"]

# An advisory lock can be tried without waiting. Waiting on the unique index would queue the duplicates instead.
LOCK = "SELECT pg_try_advisory_xact_lock($1)"
FIND = """
SELECT fingerprint, status, body FROM idempotency_keys
WHERE id = $1 AND created_at > now() - interval '24 hours'
"""
# Each new key removes at most two expired ones: the table stays a day long, and no request pays for a backlog.
REMEMBER = """
WITH expired AS (
    DELETE FROM idempotency_keys WHERE id IN (
        SELECT id FROM idempotency_keys
        WHERE created_at <= now() - interval '24 hours' AND id <> $1
        ORDER BY created_at LIMIT 2 FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO idempotency_keys (id, fingerprint, status, body) VALUES ($1, $2, $3, $4)
ON CONFLICT (id) DO UPDATE
SET fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body, created_at = now()
"""


class IdempotencyConflict(Problem):
    """A request with this Idempotency-Key is still being processed; try again after `Retry-After` seconds."""

    status = 409
    kind = "urn:problem-type:idempotency-conflict"

    def __init__(self) -> None:
        super().__init__("A request with this Idempotency-Key is still being processed.", headers={"Retry-After": "1"})


class IdempotencyKeyReused(Problem):
    """A request with a different body used this Idempotency-Key before."""

    status = 422
    kind = "urn:problem-type:idempotency-key-reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used with a different body before; use a new key for a new request.")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was first given."""

    status: int
    body: bytes
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has a key: `id` is the hash of method, path and key, `fingerprint` that of the body."""

    id: bytes
    fingerprint: bytes

    @classmethod
    def of(cls, method: str, path: str, key: str, body: bytes, *, owner: str = "") -> Request:
        """Return the request with this `key`; the same key on another method or path is another request.

        So is that of another `owner`: nobody gets the answer to somebody else.
        """
        return cls(_digest(" ".join(filter(None, (method, path, key, owner))).encode()), _digest(body))


async def first_answer(connection: Connection, request: Request) -> Answer | None:
    """Return the answer that `request` got before, or None.

    After None, carry the request out and `remember` its answer, in this same transaction. Raise `IdempotencyConflict`
    while a duplicate is being processed, `IdempotencyKeyReused` for a different body.
    """
    if not await connection.fetchval(LOCK, int.from_bytes(request.id[:8], signed=True)):
        raise IdempotencyConflict
    row = await connection.fetchrow(FIND, request.id)
    if row is None:
        return None
    if row["fingerprint"] != request.fingerprint:
        raise IdempotencyKeyReused
    return Answer(row["status"], row["body"], replayed=True)


async def remember(connection: Connection, request: Request, answer: Answer) -> None:
    """Store `answer` for 24 hours."""
    await connection.execute(REMEMBER, request.id, request.fingerprint, answer.status, answer.body)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
