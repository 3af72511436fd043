"""The replicas of the local target, as a rolling update sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.system.waiting import Deadline
from pipeline.targets.local.replicas import Replicas, Slot

__all__ = ["LocalRollout"]


@dataclass(frozen=True)
class LocalRollout:
    """See `pipeline.targets.common.rolling.Rollout`. `release` starts with `config`, `python` and `folder`."""

    first_slot: ClassVar[int] = 0

    replicas: Replicas
    release: str
    config: Path
    python: Path
    folder: Path
    serving: frozenset[str]  # the programs that were ready when the rollout began
    deadline: Deadline  # by which all of them must be ready
    started: dict[Slot, tuple[int, int]]  # by this rollout: process ID, and offset of its first line in the log

    def all(self) -> Sequence[Slot]:
        """Return each slot that has a replica."""
        return self.replicas.slots()

    def ready(self, one: Slot) -> bool:
        """Return whether the replica was ready when the rollout began."""
        return one.program in self.serving

    def right(self, one: Slot) -> bool:
        """Return whether it runs the release with the current settings and secrets."""
        return (one.release, one.config) == (self.release, self.config.name)

    def slot(self, one: Slot) -> int:
        """Return the number in the name of its program."""
        return one.slot

    def start(self, slot: int, watch: Callable[[], None]) -> Slot:
        """Start a replica as a supervised process, and wait until it is ready."""
        fresh, offset = self.replicas.start(slot, self.release, self.config, self.python, self.folder)
        self.started[fresh] = (self.replicas.wait_ready(fresh, offset, watch, self.deadline), offset)
        return fresh

    def admit(self, one: Slot, watch: Callable[[], None]) -> None:
        """Let the replica into the edge by a link to its socket."""
        self.replicas.admit(one, watch)

    def begin_stop(self, leaving: Sequence[Slot]) -> None:
        """Have the supervisor send SIGTERM, without waiting."""
        for slot in leaving:
            self.replicas.supervisor.begin_stop(slot.program)

    def stop(self, one: Slot, watch: Callable[[], None]) -> None:
        """Drain the replica, and remove its program."""
        with self.deadline.paused():
            self.replicas.stop(one, watch)
