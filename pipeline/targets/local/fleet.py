"""The local target's replicas as a rolling update sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.targets.local.replicas import Replicas, Slot

__all__ = ["LocalFleet"]


@dataclass(frozen=True)
class LocalFleet:
    """See `pipeline.targets.common.rolling.Fleet`. `config`, `python` and `folder`: what `release` starts with."""

    first_slot: ClassVar[int] = 0

    replicas: Replicas
    release: str
    config: Path
    python: Path
    folder: Path
    serving: frozenset[str]  # the programs that were ready when the rollout began
    deadline: float  # monotonic seconds, for all of them to get ready
    started: dict[Slot, tuple[int, int]]  # what it started: the process id, and where in the log its words begin

    def all(self) -> Sequence[Slot]:
        """Each slot that has one."""
        return self.replicas.slots()

    def ready(self, one: Slot) -> bool:
        """As it was seen when the rollout began."""
        return one.program in self.serving

    def right(self, one: Slot) -> bool:
        """The release, and the settings and secrets of now."""
        return (one.release, one.config) == (self.release, self.config.name)

    def slot(self, one: Slot) -> int:
        """The number in its program's name."""
        return one.slot

    def start(self, slot: int, watch: Callable[[], None]) -> Slot:
        """A supervised process."""
        fresh, offset = self.replicas.start(slot, self.release, self.config, self.python, self.folder)
        self.started[fresh] = (self.replicas.wait_ready(fresh, offset, watch, self.deadline), offset)
        return fresh

    def admit(self, one: Slot, watch: Callable[[], None]) -> None:
        """By a link to its socket."""
        self.replicas.admit(one, watch)

    def begin_stop(self, leaving: Sequence[Slot]) -> None:
        """The supervisor sends SIGTERM."""
        for one in leaving:
            self.replicas.supervisor.begin_stop(one.program)

    def stop(self, one: Slot, watch: Callable[[], None]) -> None:
        """Its program goes with it."""
        self.replicas.stop(one, watch)
