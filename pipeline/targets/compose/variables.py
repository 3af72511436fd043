"""What docker-compose.yml is filled with: settings, a release's images, and labels that say what a replica knows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.config.project import Environment, Project
from pipeline.config.secrets import owner_of
from pipeline.config.settings import COMPOSE_IMAGES, PLACED, edge_port, settings_environment, split_secrets
from pipeline.targets.common.container import BACKEND_PORT
from pipeline.targets.compose.artifacts import Artifacts, Kept
from pipeline.targets.compose.replicas import slot_name
from pipeline.targets.compose.stack import Stack, fingerprint

__all__ = ["Variables"]

FEWEST_SLOTS = 6  # so that another number of replicas need not make another edge
CONNECTION_RESERVE = 15  # beside the replicas: migrations, a psql or two, PostgreSQL's own


@dataclass
class Variables:
    """Those of an environment whose `.env` says `values`. `frontend`: the edge's image, where this deploy built one."""

    project: Project
    env: Environment
    values: Mapping[str, str]
    stack: Stack
    artifacts: Artifacts
    frontend: str | None = None
    _fingerprints: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, str]:
        """The settings that go with a release."""
        plain, _ = split_secrets(self.values)
        return {name: value for name, value in plain.items() if name not in PLACED}

    def wanted(self, release: str) -> str | None:
        """The fingerprint of a replica of RELEASE that starts now."""
        if not self.artifacts.knows(release):
            return None
        if release not in self._fingerprints:
            variables = self._shared(self.artifacts.find(release))
            definition = self.stack.definitions(variables)["backend"]
            self._fingerprints[release] = fingerprint(definition, split_secrets(self.values)[1])
        return self._fingerprints[release]

    @property
    def role(self) -> str:
        """Who the service logs in as."""
        return split_secrets(self.values)[0].get("POSTGRES_USER", self.project.name)

    @property
    def token(self) -> str | None:
        """SERVICE_TOKEN."""
        return split_secrets(self.values)[1].get("SERVICE_TOKEN")

    @property
    def token_mark(self) -> str:
        """What a replica's label says of the token that it knows."""
        return _digits(self.token)

    def environment(self, kept: Kept | None, slot: int | None = None) -> dict[str, str]:
        """The variables of docker-compose.yml: those of KEPT's release in SLOT, or of the surroundings alone."""
        variables = self._shared(kept)
        if kept:
            variables |= {
                "SLIPWAY_CONFIG": self.wanted(kept.name) or "",
                "SLIPWAY_SLOT": "" if slot is None else str(slot),
            }
        return variables

    def _shared(self, kept: Kept | None) -> dict[str, str]:
        """Those that all replicas of KEPT's release share."""
        config = kept.config if kept else self.config()
        slots = range(1, max(self.env.replicas + 1, FEWEST_SLOTS) + 1)
        workers, pool = int(config.get("BACKEND_WORKERS", "1")), int(config.get("DATABASE_POOL_SIZE", "5"))
        connections = (self.env.replicas + 1) * workers * (pool + int(config.get("DATABASE_MAX_OVERFLOW", "5")))
        edge = self.edge_image()
        variables: dict[str, str] = {
            **settings_environment(config),
            # Empty is what the file says; not said at all, compose would take it from the shell.
            **dict.fromkeys((one.name for one in COMPOSE_IMAGES), ""),
            **{name: self.values[name] for name in PLACED if name in self.values},
            # A role goes with its password, which is no part of a release: on the way back, too.
            "POSTGRES_USER": self.role,
            "SLIPWAY_OWNER": owner_of(self.role),
            "EDGE_PORT": str(edge_port(self.values)),
            "EDGE_UPSTREAMS": " ".join(f"{name}:{BACKEND_PORT}" for name in ("backend", *map(slot_name, slots))),
            "POSTGRES_MAX_CONNECTIONS": str(max(100, connections + CONNECTION_RESERVE)),
            "SLIPWAY_REDIS": _digits(split_secrets(self.values)[1].get("REDIS_PASSWORD")),
            **({"FRONTEND_IMAGE": edge} if edge else {}),
        }
        if kept:
            variables |= {
                "RELEASE": kept.name,
                "BACKEND_IMAGE": kept.images.backend,
                "MIGRATE_IMAGE": kept.images.migrate,
                "SLIPWAY_TOKEN": self.token_mark,
            }
        return variables

    def edge_image(self) -> str | None:
        """What the edge runs on: what was built for it now, else what it has, which a rollback keeps."""
        return self.frontend or next((one.image for one in self.stack.containers("frontend")), None)


def _digits(secret: str | None) -> str:
    """A label that changes with SECRET and does not tell it: twelve digits of a hash, of random text."""
    return hashlib.sha256((secret or "").encode()).hexdigest()[:12]
