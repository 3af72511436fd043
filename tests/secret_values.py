"""Values that look like secrets, made when a test runs: written down, each would be a finding of `nox -s lint`."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

__all__ = ["PASSWORD", "SECRETS", "TOKEN"]


def _bytes(seed: str) -> bytes:
    return hashlib.sha256(seed.encode()).digest()


def _letters(seed: str, count: int) -> str:
    return base64.b64encode(_bytes(seed) + _bytes(f"{seed} once more")).decode().translate({43: "x", 47: "y"})[:count]


PASSWORD = _letters("a password", 24)
TOKEN = f"ghp_{_letters('a token', 36)}"
KEY = base64.encodebytes(b"".join(_bytes(f"key {number}") for number in range(38))).decode()
AGE = "".join("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"[each % 32] for each in _bytes("age") + _bytes("more"))[:58]

# What somebody might commit, by what it is: as a file that has it, and its value.
SECRETS: Mapping[str, tuple[str, str]] = {
    "a password in .env": (f"POSTGRES_PASSWORD={PASSWORD}\n", PASSWORD),
    "a key in .env": (f"JWT_SECRET_KEY={_bytes('jwt').hex()}\n", _bytes("jwt").hex()),
    "a token in Python": (f'service_token = "{PASSWORD}"\n', PASSWORD),
    "a password in YAML": (f"environment:\n  REDIS_PASSWORD: {PASSWORD}\n", PASSWORD),
    "a key of a bucket": (f"BACKUP_ADDRESS_SECRET={PASSWORD[:20].upper()}:{PASSWORD}\n", PASSWORD),
    "a database's URL": (f'URL = "postgresql://board:{PASSWORD}@db.shop.net:5432/board"\n', PASSWORD),
    "a Redis' URL": (f"REDIS_URL=rediss://:{PASSWORD}@cache.shop.net:6379/0\n", PASSWORD),
    "a Secret of Kubernetes": (
        f"apiVersion: v1\nkind: Secret\ndata:\n  PASSWORD: {base64.b64encode(PASSWORD.encode()).decode()}\n",
        base64.b64encode(PASSWORD.encode()).decode(),
    ),
    "a private key": (f"-----BEGIN PRIVATE KEY-----\n{KEY}-----END PRIVATE KEY-----\n", KEY.splitlines()[0]),
    "an identity of age": (f"AGE-SECRET-KEY-1{AGE}\n", AGE),
    "a token of GitHub": (f"{TOKEN}\n", TOKEN),
}
