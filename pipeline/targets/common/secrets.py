"""Secrets that come from this machine: from `.env`, or from the command that the environment names."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.managed import PASSWORDS, managed_stores
from pipeline.config.project import Environment, Project
from pipeline.config.settings import settings_environment, split_secrets
from pipeline.config.sources import OWNER, ROLE, environment_values, unwritable, write_values
from pipeline.targets.common import roles

__all__ = ["SecretsHere", "lifetime_minutes"]

EXPIRES = "JWT_EXPIRE_MINUTES"


class SecretsHere(roles.Secrets):
    """See `pipeline.targets.common.roles.Secrets`. A target adds how it reaches its database."""

    def __init__(self, project: Project, env: Environment) -> None:
        self.project, self.env = project, env

    def read(self) -> dict[str, str]:
        """Read `.env`, or what the command prints."""
        plain, secrets = split_secrets(self._values())
        owner = {OWNER: plain[OWNER]} if plain.get(OWNER) else {}
        return {**secrets, **owner, ROLE: plain.get(ROLE, self.project.name)}

    def objection(self, name: str) -> str | None:
        """Object to the password of a store that others manage."""
        url = PASSWORDS.get(name, "")
        if url not in managed_stores(self._values()).urls:
            return None
        return f"{name}: the store is managed by others, and its password is in {url}: change it there, then deploy"

    def elsewhere(self, name: str) -> str | None:
        """Say so of a command without `write`, and of what `.env` does not decide."""
        return unwritable(self.project.root, name, self.env.secrets)

    def write(self, changes: Mapping[str, str]) -> None:
        """Write to `.env`, or give the values to the command."""
        write_values(self.project.root, self.env.name, self.env.secrets, changes)

    def lifetime_minutes(self) -> float:
        """Return the setting in `.env`."""
        return lifetime_minutes(self._values())

    def _values(self) -> dict[str, str]:
        return environment_values(self.project.root, self.env.name, self.env.secrets)


def lifetime_minutes(settings: Mapping[str, str]) -> float:
    """Return how long an access token is valid by `settings`, those without a value by default."""
    return float(settings_environment(settings)[EXPIRES])
