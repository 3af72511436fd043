"""What PostgreSQL keeps of a password, so that it need not be sent: a statement may end up in the server's log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

__all__ = ["verifier"]

ROUNDS, SALT_BYTES = 4096, 16  # PostgreSQL's own


def verifier(password: str, salt: bytes | None = None) -> str:
    """Return the SCRAM-SHA-256 verifier (RFC 5803) of `password`, with a fresh `salt` by default.

    Raise `ValueError` for a password that a client would change before it uses it (SASLprep, RFC 4013).
    """
    if not password.isprintable() or unicodedata.normalize("NFKC", password) != password or not password:
        raise ValueError("a password must have printable characters alone, such as those of ASCII")
    salt = salt or secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    client, server = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ROUNDS}:{salt64}${stored64}:{server64}"
