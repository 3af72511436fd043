"""Which token the proof authenticates with while SERVICE_TOKEN changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.system.text import digits

__all__ = ["CURRENT", "PREVIOUS", "Tokens"]

CURRENT, PREVIOUS = "SERVICE_TOKEN", "SERVICE_TOKEN_PREVIOUS"


@dataclass(frozen=True)
class Tokens:
    """The tokens that a replica with these settings accepts."""

    current: str | None
    previous: str | None

    @classmethod
    def of(cls, secrets: Mapping[str, str]) -> Tokens:
        """Return those in `secrets`; an empty one is unset."""
        return cls(secrets.get(CURRENT) or None, secrets.get(PREVIOUS) or None)

    @property
    def mark(self) -> str:
        """What a replica that is started now carries: a hash of each token that it accepts."""
        return " ".join(digits(token) for token in self._accepted)

    @property
    def _accepted(self) -> tuple[str | None, ...]:
        return (self.current, self.previous) if self.previous else (self.current,)

    def shared(self, marks: Iterable[str]) -> tuple[str | None, bool]:
        """Return the token to authenticate with, and whether each replica with one of these `marks` accepts it.

        In a rotation that is the previous one until the last replica that knows no other is gone.
        """
        known = [set(mark.split()) for mark in marks]
        for token in self._accepted:
            if all(digits(token) in each for each in known):
                return token, True
        return self.current, False
