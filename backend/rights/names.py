"""The roles of a database, by the name of its owner."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Names"]

LONGEST = 63  # bytes: PostgreSQL cuts a longer name (NAMEDATALEN), and would then mean another role
# `-other`: the second login that earlier versions made, and that acts as the owner.
SUFFIX = re.compile(r"-(?:app-[12]|other)$")


@dataclass(frozen=True)
class Names:
    """The roles around an `owner`. It owns all objects, and migrates."""

    owner: str

    @classmethod
    def of(cls, login: str) -> Names:
        """Return the roles that `login` belongs to: the owner, or one of the service's two.

        Raise `ValueError` where a name would be longer than PostgreSQL's names are.
        """
        names = cls(SUFFIX.sub("", login))
        if not names.owner or any(len(name.encode()) > LONGEST for name in (names.owner, *names.others)):
            raise ValueError(f"role {names.owner}: its name must have 1 to {LONGEST - len('-monitor')} bytes")
        return names

    @property
    def app(self) -> str:
        """The group that may read and write rows. Nobody logs in as it."""
        return f"{self.owner}-app"

    @property
    def logins(self) -> tuple[str, str]:
        """The two logins of the service, which are in that group: one is in use, the other is idle."""
        return f"{self.app}-1", f"{self.app}-2"

    @property
    def monitor(self) -> str:
        """The login that sees the server's figures, and no row."""
        return f"{self.owner}-monitor"

    @property
    def read(self) -> str:
        """The group for the logins of people, who read."""
        return f"{self.owner}-read"

    @property
    def other(self) -> str:
        """The second login of the owner, which earlier versions made."""
        return f"{self.owner}-other"

    @property
    def others(self) -> tuple[str, ...]:
        """All roles but the owner."""
        return (self.app, *self.logins, self.monitor, self.read)

    def idle(self, login: str) -> str:
        """Return the login of the service to change to from `login`, which may be the owner's."""
        first, second = self.logins
        return second if login == first else first
