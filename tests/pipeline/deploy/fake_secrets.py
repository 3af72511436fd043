"""The secrets of an environment without an engine, and what would have been refused because of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.targets import Secrets
from tests.pipeline.deploy.script import Script

__all__ = ["FakeSecrets"]

KEY, TOKEN = "JWT_SECRET_KEY", "SERVICE_TOKEN"


@dataclass
class FakeSecrets(Secrets):
    """Secrets in a dict. `given`: what each replica was started with; `passwords`: the logins of the database.

    `places`: where a person has to change one; `objections`: why one has nothing to rotate. `refused` has a line for
    each request that would have failed: a token that another replica does not know, a login that is refused.
    """

    script: Script
    kept: dict[str, str] = field(default_factory=dict)
    given: dict[str, dict[str, str]] = field(default_factory=dict)
    passwords: dict[str, str | None] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)  # in a vault that nobody has read yet
    objections: dict[str, str] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def read(self) -> dict[str, str]:
        """Read the dict."""
        return {"POSTGRES_USER": "board", **self.kept}

    def objection(self, name: str) -> str | None:
        """Say what it was told to."""
        return self.objections.get(name)

    def elsewhere(self, name: str) -> str | None:
        """Say what it was told to."""
        return self.places.get(name)

    def refresh(self) -> None:
        """Take what a person has changed elsewhere."""
        self.script.do("refresh secrets")
        self.kept |= self.changed
        self.changed = {}

    def write(self, changes: Mapping[str, str]) -> None:
        """Change the dict."""
        self.script.do("write", " ".join(changes))
        self.kept = {name: value for name, value in {**self.kept, **changes}.items() if value}
        self.script.fail_if_told("written")

    def set_password(self, role: str, password: str | None) -> None:
        """Note it."""
        self.script.do("end" if password is None else "let in", role)
        self.passwords[role] = password

    def change_superuser(self) -> None:
        """Note it."""
        self.script.do("superuser")

    def lifetime_minutes(self) -> float:
        """Let tokens live a quarter of an hour."""
        return 15

    def start(self, replica: str, beside: Sequence[str]) -> None:
        """Start a replica beside others: those sign with their key, and callers have the token of before."""
        mine = self.given[replica] = dict(self.kept)
        for one in (self.given[name] for name in beside):
            for name in (KEY, TOKEN):
                if name in one and one[name] not in _accepted(mine, name):
                    self.refused.append(f"{replica} refuses the {name} of before")
            if KEY in mine and mine[KEY] not in _accepted(one, KEY):
                self.refused.append(f"a replica of before refuses the {KEY} of {replica}")
        role = self.read()["POSTGRES_USER"]
        if "POSTGRES_PASSWORD" in mine and self.passwords.get(role) != mine["POSTGRES_PASSWORD"]:
            self.refused.append(f"{role} cannot log in")


def _accepted(settings: Mapping[str, str], name: str) -> set[str | None]:
    """Return the values of a secret that a replica with `settings` accepts."""
    return {settings.get(name), settings.get(f"{name}_PREVIOUS")}
