"""The compose target's replicas as a rolling update sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.targets.common.container import Container
from pipeline.targets.compose.replicas import Replicas, slot_of

__all__ = ["ComposeFleet"]


@dataclass(frozen=True)
class ComposeFleet:
    """See `pipeline.targets.common.rolling.Fleet`. `config`: the fingerprint of what `release` starts with."""

    first_slot: ClassVar[int] = 1

    replicas: Replicas
    release: str
    config: str | None
    environment: Callable[[int], Mapping[str, str]]  # the variables of docker-compose.yml for the replica of a slot
    deadline: float  # monotonic seconds, for all of them to get ready
    started: dict[str, Container]  # what it started, by its ID, as it was when it got ready

    def all(self) -> Sequence[Container]:
        """Each container of the service."""
        return self.replicas.all()

    def ready(self, one: Container) -> bool:
        """By its health check, as it was seen."""
        return one.ready

    def right(self, one: Container) -> bool:
        """The release, with the settings and secrets of now; what a plain `docker compose up` made never is."""
        labels = one.labels
        same = (labels.get("slipway.release"), labels.get("slipway.config")) == (self.release, self.config)
        return same and slot_of(one) is not None

    def slot(self, one: Container) -> int | None:
        """That of its label."""
        return slot_of(one)

    def start(self, slot: int, watch: Callable[[], None]) -> Container:
        """A container on the network of its data alone."""
        fresh = self.replicas.start(self.environment(slot))
        ready = self.started[fresh.ident] = self.replicas.wait_ready(self.release, fresh.ident, watch, self.deadline)
        return ready

    def admit(self, one: Container, watch: Callable[[], None]) -> None:
        """Onto the edge's network."""
        self.replicas.admit(one, watch)

    def begin_stop(self, leaving: Sequence[Container]) -> None:
        """SIGTERM, once each."""
        self.replicas.begin_stop(leaving)

    def stop(self, one: Container, watch: Callable[[], None]) -> None:
        """The container is removed."""
        self.replicas.stop(one, watch)
