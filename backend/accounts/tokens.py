"""Access tokens: short JWTs that every replica checks by itself, without asking the database.

The key rotates in two rollouts, because a replica refuses a token whose key it does not know: see docs/4-runbook.md.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt

from backend.accounts.schemas import Role
from backend.settings import Settings

__all__ = ["AccessTokens", "Claims"]

TYPE = "at+jwt"  # RFC 9068 2.1
REQUIRED = ("iss", "aud", "sub", "exp", "iat", "jti", "sid", "role", "name")
# A replica whose clock is ahead signs an `iat` that is still to come elsewhere: it is not judged. `exp` is, without any
# leeway, so that "within JWT_EXPIRE_MINUTES" holds: where a clock is a minute ahead, a token only ends a minute sooner,
# and its owner refreshes.
OPTIONS: Any = {"require": list(REQUIRED), "verify_iat": False}
CHARACTERS = 2048
KNOWN = 1024  # verified tokens that are remembered: a look-up costs 0.3 µs, a verification 85


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid access token says. `expires` is in seconds since the epoch."""

    account: UUID
    session: UUID
    name: str
    role: Role
    expires: int


class AccessTokens:
    """The access tokens of a service: signed with JWT_SECRET_KEY, accepted with JWT_SECRET_KEY_PREVIOUS, too."""

    def __init__(self, settings: Settings) -> None:
        secrets = (settings.jwt_secret_key, settings.jwt_secret_key_previous)
        keys = [secret.get_secret_value().encode() if secret else None for secret in secrets]
        self._key = keys[0]
        self._keys = {_key_id(key): key for key in keys if key}
        self._algorithm = settings.jwt_algorithm
        self._issuer = settings.project_name
        # A token of staging is none for production, even where somebody gave both the same key.
        self._audience = f"{settings.project_name}:{settings.environment}"
        self.seconds = settings.jwt_expire_minutes * 60
        self._known: dict[str, Claims] = {}

    @property
    def can_sign(self) -> bool:
        """Whether there is a JWT_SECRET_KEY."""
        return self._key is not None

    @property
    def can_read(self) -> bool:
        """Whether any token could be valid."""
        return bool(self._keys)

    def sign(self, account: UUID, session: UUID, *, name: str, role: Role) -> str:
        """Return a token for an `account` in a `session`, which is accepted for JWT_EXPIRE_MINUTES."""
        assert self._key is not None
        now = int(time.time())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": str(account),
            "exp": now + self.seconds,
            "iat": now,
            "jti": uuid4().hex,
            "sid": str(session),
            "name": name,
            "role": role,
        }
        header = {"kid": _key_id(self._key), "typ": TYPE}
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=header)

    def read(self, token: str) -> Claims | None:
        """Return what `token` says, or None where it is not ours, was changed, or has expired."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._verified(token)
            if claims is None:
                return None
            if len(self._known) >= KNOWN:
                del self._known[next(iter(self._known))]  # the one that came first
            self._known[token] = claims
        return claims if claims.expires > time.time() else None

    def _verified(self, token: str) -> Claims | None:
        if len(token) > CHARACTERS:
            return None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE:
                return None
            return _claims(
                jwt.decode(
                    token,
                    self._keys[header["kid"]],
                    algorithms=[self._algorithm],  # never what the token says
                    audience=self._audience,
                    issuer=self._issuer,
                    options=OPTIONS,
                )
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None


def _claims(given: Mapping[str, Any]) -> Claims:
    return Claims(
        account=UUID(given["sub"]),
        session=UUID(given["sid"]),
        name=str(given["name"]),
        role=Role(given["role"]),
        expires=int(given["exp"]),
    )


def _key_id(key: bytes) -> str:
    """Return the name of a `key` in the header of its tokens."""
    return hmac.new(key, b"kid", hashlib.sha256).hexdigest()[:8]
