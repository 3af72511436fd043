"""Refresh tokens: what they are made of. Nothing that could be presented as one is stored.

A token is 64 random bytes. The first half names its family (the session) and stays; the second half is the secret,
which changes with each use: `successor = sha256(seed of the session + secret)`. So every replica that is asked with the
same token makes the same successor, whatever JWT_SECRET_KEY is. Who has the database alone has the seed but no secret,
and who stole an old token has no seed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass

__all__ = ["RefreshToken"]

BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class RefreshToken:
    """A refresh token: the `family` and the `secret`, 32 bytes each. `str()` of it is what a client gets."""

    family: bytes
    secret: bytes

    @classmethod
    def new(cls) -> RefreshToken:
        """Return the first token of a new family."""
        return cls(os.urandom(BYTES), os.urandom(BYTES))

    @classmethod
    def read(cls, text: str) -> RefreshToken | None:
        """Return the token that `text` is, or None where it cannot be one."""
        try:
            both = base64.b64decode(f"{text}==", altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        return cls(both[:BYTES], both[BYTES:]) if len(both) == 2 * BYTES else None

    def __str__(self) -> str:
        """Return the token as text."""
        return base64.urlsafe_b64encode(self.family + self.secret).decode().rstrip("=")

    @property
    def family_hash(self) -> bytes:
        """By which the session is found."""
        return hashlib.sha256(self.family).digest()

    @property
    def secret_hash(self) -> bytes:
        """By which it is known whether this token is the one in use."""
        return hashlib.sha256(self.secret).digest()
