"""The password of a login of PostgreSQL, as the server keeps it: whoever reads the statement cannot log in with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets as randomness

__all__ = ["password_sql", "verifier"]

ITERATIONS = 4096  # PostgreSQL's own; the passwords are random
SALT_BYTES = 16


def password_sql(role: str, password: str | None) -> str:
    """Return the statement that gives `role` a password, or none."""
    name = role.replace('"', '""')
    value = "NULL" if password is None else f"'{verifier(password, randomness.token_bytes(SALT_BYTES))}'"
    return f'ALTER ROLE "{name}" PASSWORD {value};\n'


def verifier(password: str, salt: bytes) -> str:
    """Return what PostgreSQL keeps of an ASCII `password` (RFC 5802, RFC 7677)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    client, server = (hmac.digest(salted, word, "sha256") for word in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client).digest()
    of_salt, of_client, of_server = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{of_salt}${of_client}:{of_server}"
