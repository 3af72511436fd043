"""The secrets of a local environment, whose stores ask for no password."""

from __future__ import annotations

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.targets.common.secrets import SecretsHere

__all__ = ["LocalSecrets"]

STORES = {
    **dict.fromkeys(("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", SUPERUSER_PASSWORD), "PostgreSQL"),
    "REDIS_PASSWORD": "Redis",
}


class LocalSecrets(SecretsHere):
    """See `pipeline.targets.common.roles.Secrets`."""

    def objection(self, name: str) -> str | None:
        """Object to the passwords of the stores."""
        if name in STORES:
            what = f"{STORES[name]} listens on a socket that is closed to other users, and asks for no password"
            return super().objection(name) or f"{name}: on local, {what}: there is nothing to rotate"
        return None
