"""A person's new password: how it is read, what it must be, and its hash."""

from __future__ import annotations

import getpass
import os
from typing import TextIO

from argon2 import PasswordHasher

from pipeline.errors import UsageError

__all__ = ["hash_password", "read_password"]

FEWEST_CHARACTERS, MOST_BYTES = 12, 1024
# Argon2id as OWASP recommends it where many may sign in at once: 19 MiB, two passes, one thread. The service checks a
# password with what its hash names. https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
MEMORY_KIB, PASSES, THREADS = 19 * 1024, 2, 1
LINE_END = b"\r\n"


def read_password(source: TextIO) -> str:
    """Return the password that a person types, twice, or the first line of `source` where that is no terminal.

    Raise `UsageError` with the rule that it breaks.
    """
    if not source.isatty():
        return _checked(source.buffer.readline(MOST_BYTES + len(LINE_END) + 1).rstrip(LINE_END))
    try:
        password = _checked(os.fsencode(getpass.getpass("New password: ")))
        if getpass.getpass("Once more: ") != password:
            raise UsageError("the two passwords differ: nothing was changed")
    except EOFError:
        raise UsageError("no password was typed: nothing was changed") from None
    return password


def _checked(given: bytes) -> str:
    """Return the text of a password, if it keeps the rules."""
    if len(given) > MOST_BYTES:
        raise UsageError(f"the password is too long: at most {MOST_BYTES} bytes")
    try:
        password = given.decode()
    except UnicodeDecodeError:
        raise UsageError("the password is not UTF-8 text") from None
    if len(password) < FEWEST_CHARACTERS:
        raise UsageError(f"the password is too short: at least {FEWEST_CHARACTERS} characters")
    return password


def hash_password(password: str) -> str:
    """Return the hash of `password` as a PHC string; it takes about 30 ms."""
    hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=THREADS)
    return hasher.hash(password)
