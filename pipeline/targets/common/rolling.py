"""The rolling update of targets that start and stop replicas themselves: one at a time, never below N."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import ClassVar, Protocol, TypeVar

from pipeline.targets.common.edge import settle

__all__ = ["Rollout", "roll"]

R = TypeVar("R")


class Rollout(Protocol[R]):
    """The steps of a rollout on one target. `watch` is called while waiting, and may raise."""

    first_slot: ClassVar[int]

    def all(self) -> Sequence[R]:
        """Return every replica, of whatever release, running or not."""

    def ready(self, one: R) -> bool:
        """Return whether the replica serves."""

    def right(self, one: R) -> bool:
        """Return whether the replica is what the release would start now."""

    def slot(self, one: R) -> int | None:
        """Return the replica's slot in the edge; None where it is in none of the numbered slots."""

    def start(self, slot: int, watch: Callable[[], None]) -> R:
        """Start a replica of the release in `slot` and wait until it is ready.

        Raise `DeployFailed` where it does not get ready.
        """

    def admit(self, one: R, watch: Callable[[], None]) -> None:
        """Let the replica into the edge, and wait until requests through the edge reach it."""

    def begin_stop(self, leaving: Sequence[R]) -> None:
        """Tell the replicas to drain, without waiting."""

    def stop(self, one: R, watch: Callable[[], None]) -> None:
        """Drain the replica, wait for its end, and forget it."""


def roll(rollout: Rollout[R], wanted: int, watch: Callable[[str], None], *, back: bool = False) -> None:
    """Do a `rollout`: start a replica, let it into the edge, drain an old one, until `wanted` are new.

    With `back`, serve with fewer than `wanted` where necessary: a replica too few is better than wrong answers.
    """
    keep, old, dead = _sort_out(rollout, wanted)
    leaving = len(old) + len(dead)
    rollout.begin_stop([*dead, *(old if back and keep else [])])
    for replica in dead:
        rollout.stop(replica, partial(watch, "removing a replica that does not serve"))
    for replica in keep:
        rollout.admit(replica, partial(watch, "waiting for the edge"))
    for number in range(len(keep) + 1, wanted + 1):
        where = f"replica {number} of {wanted}"
        if len(rollout.all()) > wanted:
            rollout.stop(old.pop(0), partial(watch, f"{where}: draining an old replica"))
        taken = {rollout.slot(replica) for replica in rollout.all()}
        free = next(slot for slot in count(rollout.first_slot) if slot not in taken)
        fresh = rollout.start(free, partial(watch, f"{where}: starting"))
        rollout.admit(fresh, partial(watch, f"{where}: entering the edge"))
    for replica in old:
        rollout.stop(replica, partial(watch, "draining the last old replica"))
    if leaving:  # a replica that ended on its own did not drain, and a failed release may end at any moment
        settle(time.monotonic())


def _sort_out(rollout: Rollout[R], wanted: int) -> tuple[list[R], list[R], list[R]]:
    """Return the replicas that can stay, those to replace, and those that do not serve.

    Stopping the last costs no answer.
    """
    keep: list[R] = []
    old: list[R] = []
    dead: list[R] = []
    for replica in rollout.all():
        right = len(keep) < wanted and rollout.right(replica)
        (dead if not rollout.ready(replica) else keep if right else old).append(replica)
    return keep, old, dead
