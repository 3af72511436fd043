"""The password of a login of PostgreSQL, as the server keeps it: whoever reads the statement cannot log in with it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets as randomness

__all__ = ["other_login", "password_sql", "verifier"]

ITERATIONS = 4096  # PostgreSQL's own; the passwords are random
SALT_BYTES = 16
PAIR, OTHER = re.compile(r"-app-([12])$"), "-other"  # of two logins, the service uses one


def other_login(role: str) -> str:
    """Return the login that takes turns with `role`: NAME-app-1 and NAME-app-2 do, NAME and NAME-other."""
    if pair := PAIR.search(role):
        return f"{role[: pair.start(1)]}{3 - int(pair[1])}"
    return role.removesuffix(OTHER) if role.endswith(OTHER) else f"{role}{OTHER}"


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
