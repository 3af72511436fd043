"""Passwords: argon2id, two at a time, in threads of their own."""

from __future__ import annotations

import asyncio
import base64
import os
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.low_level import ARGON2_VERSION

from backend.problems import Problem

__all__ = ["HASH", "Passwords", "SignInBusy"]

# The least that OWASP recommends for argon2id. One takes 25 ms and 19 MiB, so the library's default of 64 MiB in four
# threads for each request would end a container of 384 MiB.
MEMORY_KIB, TIME_COST, PARALLELISM = 19_456, 2, 1
SALT_BYTES, HASH_BYTES = 16, 32
AT_ONCE = 2
WAIT_SECONDS = 1.0
HASH = r"^\$argon2id\$v=19\$m=\d{1,5},t=\d{1,2},p=\d{1,2}\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{22,}$"


class SignInBusy(Problem):
    """Too many sign in at this moment; try again after `Retry-After` seconds."""

    status = 503
    kind = "urn:problem-type:sign-in-busy"

    def __init__(self) -> None:
        super().__init__("Too many sign in at this moment; try again.", headers={"Retry-After": "1"})


class Passwords:
    """The check of passwords in one process, at most two at once and off the event loop."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(
            TIME_COST, MEMORY_KIB, PARALLELISM, HASH_BYTES, SALT_BYTES, encoding="utf-8", type=Type.ID
        )
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="password")
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._nobodys = _impossible_hash()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, password: str, known: str | None) -> str | None:
        """Return the hash to keep of a `password` that is right, or None where it is wrong.

        That is a new one where `known` was made with other parameters. Without a `known` hash, the same work is done,
        so that nobody learns from the time which names exist. Raise `SignInBusy` where no turn comes within a second.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise SignInBusy from None
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._check, password, known or self._nobodys)
        finally:
            # A request that was cancelled leaves its thread at work; there are only two of them in any case.
            self._turns.release()

    def _check(self, password: str, known: str) -> str | None:
        try:
            self._hasher.verify(known, password)
        except (Argon2Error, InvalidHashError):
            return None
        return self._hasher.hash(password) if self._hasher.check_needs_rehash(known) else known


def _impossible_hash() -> str:
    """Return a hash of these parameters that no password has."""
    parts = (base64.b64encode(os.urandom(size)).decode().rstrip("=") for size in (SALT_BYTES, HASH_BYTES))
    parameters = f"m={MEMORY_KIB},t={TIME_COST},p={PARALLELISM}"
    return "$".join(("", "argon2id", f"v={ARGON2_VERSION}", parameters, *parts))
