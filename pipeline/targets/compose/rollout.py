"""The replicas of the compose target, as a rolling update sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.system.waiting import Deadline
from pipeline.targets.common.container import Container
from pipeline.targets.compose.replicas import Replicas, slot_of

__all__ = ["ComposeRollout"]


@dataclass(frozen=True)
class ComposeRollout:
    """See `pipeline.targets.common.rolling.Rollout`. `config` is the fingerprint of what `release` starts with."""

    first_slot: ClassVar[int] = 1

    replicas: Replicas
    release: str
    config: str | None
    environment: Callable[[int], Mapping[str, str]]  # the variables of docker-compose.yml for the replica of a slot
    deadline: Deadline  # by which all of them must be ready
    started: dict[str, Container]  # what this rollout started, by ID, as it was when it got ready

    def all(self) -> Sequence[Container]:
        """Return each container of the service."""
        return self.replicas.all()

    def ready(self, one: Container) -> bool:
        """Return whether its health check passed when it was inspected."""
        return one.ready

    def right(self, one: Container) -> bool:
        """Return whether it runs the release with the current settings and secrets.

        A container that a plain `docker compose up` created never counts as right.
        """
        labels = one.labels
        same = (labels.get("slipway.release"), labels.get("slipway.config")) == (self.release, self.config)
        return same and slot_of(one) is not None

    def slot(self, one: Container) -> int | None:
        """Return the slot that its label names."""
        return slot_of(one)

    def start(self, slot: int, watch: Callable[[], None]) -> Container:
        """Start a container whose socket the edge does not know yet, and wait until it is ready."""
        fresh = self.replicas.start(slot, self.environment(slot))
        ready = self.started[fresh.ident] = self.replicas.wait_ready(self.release, fresh.ident, watch, self.deadline)
        return ready

    def admit(self, one: Container, watch: Callable[[], None]) -> None:
        """Link the replica's slot to its socket, and wait until requests through the edge reach it."""
        self.replicas.admit(one, watch)

    def begin_stop(self, leaving: Sequence[Container]) -> None:
        """Send SIGTERM once to each container, without waiting."""
        self.replicas.begin_stop(leaving)

    def stop(self, one: Container, watch: Callable[[], None]) -> None:
        """Drain the replica, and remove its container."""
        with self.deadline.paused():
            self.replicas.stop(one, watch)
