"""The variables of docker-compose.yml: settings, a release's images, and labels with what a replica was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.logins import Logins, logins_of
from pipeline.config.managed import FILES, Managed, managed_stores
from pipeline.config.project import ComposeEnvironment, Project
from pipeline.config.secrets import ADDRESS_SECRET, secret_files
from pipeline.config.settings import (
    COMPOSE_IMAGES,
    PLACED,
    URLS,
    backup_settings,
    edge_port,
    grace_seconds,
    release_settings,
    settings_environment,
    split_secrets,
)
from pipeline.system.text import digits
from pipeline.targets.common.edge import trusted_ranges
from pipeline.targets.common.here import FEWEST_SLOTS, max_connections, own_port
from pipeline.targets.common.tokens import Tokens
from pipeline.targets.compose.artifacts import Artifacts, Kept
from pipeline.targets.compose.replicas import PLAIN_SOCKET, slot_path, socket_path
from pipeline.targets.compose.stack import Stack, config_fingerprint

__all__ = ["Variables"]

# The secrets of the service `backup`: another one makes another container.
OF_BACKUPS = ("POSTGRES_PASSWORD", *FILES, ADDRESS_SECRET)


@dataclass
class Variables:
    """The variables of `env` with the `values` of its `.env`. `frontend`: the edge's image, if this deploy built it."""

    project: Project
    env: ComposeEnvironment
    values: Mapping[str, str]
    stack: Stack
    artifacts: Artifacts
    frontend: str | None = None
    _fingerprints: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, str]:
        """Return the settings that are part of a release."""
        return release_settings(self.values)

    def wanted(self, release: str) -> str | None:
        """Return the fingerprint that a replica of `release` started now would have; None where it is not kept here."""
        if not self.artifacts.knows(release):
            return None
        if release not in self._fingerprints:
            variables = self._shared(self.artifacts.find(release))
            definition = self.stack.definitions(variables)["backend"]
            self._fingerprints[release] = config_fingerprint(definition, self.secrets)
        return self._fingerprints[release]

    @property
    def managed(self) -> Managed:
        """The stores that others manage."""
        return managed_stores(self.values)

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets of `.env`, as a container reads them."""
        return {**split_secrets(self.values)[1], **self.managed.files()}

    @property
    def backups(self) -> dict[str, str]:
        """The settings of backups in `.env`, its secrets among them."""
        return backup_settings(self.values)

    def secret_file(self, name: str) -> Path:
        """Return the file of a secret that containers read."""
        return secret_files(self.project.root) / name

    @property
    def surroundings(self) -> list[str]:
        """The services around the replicas: the stores that run here, and the edge."""
        return [*(name for name in ("postgres", "redis") if name not in self.stack.elsewhere), "frontend"]

    @property
    def logins(self) -> Logins:
        """Who logs in to PostgreSQL."""
        return logins_of(self.values, self.project.name)

    @property
    def database(self) -> str:
        """The name of the database."""
        return split_secrets(self.values)[0].get("POSTGRES_DB", self.project.name)

    @property
    def tokens(self) -> Tokens:
        """The tokens that a replica started now would accept."""
        return Tokens.of(split_secrets(self.values)[1])

    def environment(self, kept: Kept | None, slot: int | None = None) -> dict[str, str]:
        """Return the variables of docker-compose.yml for `kept` in `slot`, or without `kept` for its surroundings."""
        variables = self._shared(kept)
        if kept:
            variables |= {
                "SLIPWAY_CONFIG": self.wanted(kept.name) or "",
                "SLIPWAY_SLOT": "" if slot is None else str(slot),
                "BACKEND_SOCKET": "" if slot is None else socket_path(slot),
            }
        return variables

    def _shared(self, kept: Kept | None) -> dict[str, str]:
        """Return the variables that all replicas of `kept` share."""
        config = kept.config if kept else self.config()
        slots = range(1, max(self.env.replicas + 1, FEWEST_SLOTS) + 1)
        edge = self.edge_image()
        variables: dict[str, str] = {
            **settings_environment(config),
            # Empty means the default of the file; a variable that is not set here would be taken from the shell.
            **dict.fromkeys((image.name for image in COMPOSE_IMAGES), ""),
            **{name: self.values[name] for name in PLACED - URLS if name in self.values},
            # A role goes with its password, which is not part of a release: in a rollback, too.
            "POSTGRES_USER": self.logins.user,
            "POSTGRES_OWNER": self.logins.login if self.logins.apart else "",
            "SLIPWAY_OWNER": self.logins.owner,
            "SLIPWAY_MIGRATE_NETWORK": "frontend" if self.managed.database else "backend",
            "SLIPWAY_SECRETS": str(secret_files(self.project.root)),
            **({"EDGE_ADDRESS": _bracketed(self.values["EDGE_ADDRESS"])} if self.values.get("EDGE_ADDRESS") else {}),
            "EDGE_PORT": str(own_port(self.env) or edge_port(self.values)),
            "EDGE_TRUSTED_PROXIES": trusted_ranges(self.values),
            "EDGE_UPSTREAMS": " ".join(f"unix/{path}" for path in (PLAIN_SOCKET, *map(slot_path, slots))),
            "SLIPWAY_GRACE": f"{grace_seconds(config)}s",
            "POSTGRES_MAX_CONNECTIONS": str(max_connections(self.env.replicas, config)),
            "BACKUP_KEEP": self.env.kept.keep,
            **{name: self.backups.get(name, "") for name in ("BACKUP_ADDRESS", "BACKUP_RECIPIENTS", "BACKUP_SCHEDULE")},
            "SLIPWAY_BACKUP": digits(" ".join({**self.backups, **self.secrets}.get(name, "") for name in OF_BACKUPS)),
            **({"FRONTEND_IMAGE": edge} if edge else {}),
        }
        if kept:
            variables |= {
                "RELEASE": kept.name,
                "BACKEND_IMAGE": kept.images.backend,
                "MIGRATE_IMAGE": kept.images.migrate,
                "BACKUP_IMAGE": kept.images.backup or "",
                "SLIPWAY_TOKEN": self.tokens.mark,
            }
        return variables

    def edge_image(self) -> str | None:
        """Return the edge's image: the one built by this deploy, otherwise the current one, which a rollback keeps."""
        return self.frontend or next((container.image for container in self.stack.containers("frontend")), None)


def _bracketed(address: str) -> str:
    """Return an address as a port mapping of Compose needs it: one of IPv6 in brackets."""
    return f"[{address}]" if ":" in address and not address.startswith("[") else address
