"""The rolling update of the targets that start and stop replicas themselves: one at a time, never below N."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import ClassVar, Protocol, TypeVar

from pipeline.targets.common.edge import settle

__all__ = ["Fleet", "roll"]

R = TypeVar("R")


class Fleet(Protocol[R]):
    """A target's replicas, as a release sees them that is rolled out. WATCH is called while waiting, and may raise."""

    first_slot: ClassVar[int]

    def all(self) -> Sequence[R]:
        """Every replica, of whatever release, running or not."""

    def ready(self, one: R) -> bool:
        """Whether it serves."""

    def right(self, one: R) -> bool:
        """Whether it is what the release would start now."""

    def slot(self, one: R) -> int | None:
        """Its place in the edge; None where it has none of the numbered ones."""

    def start(self, slot: int, watch: Callable[[], None]) -> R:
        """Start one of the release in SLOT and wait until it is ready; raises `DeployFailed` where it cannot be."""

    def admit(self, one: R, watch: Callable[[], None]) -> None:
        """Let it into the edge, and see that it is answered from there."""

    def begin_stop(self, leaving: Sequence[R]) -> None:
        """Have them drain, without waiting."""

    def stop(self, one: R, watch: Callable[[], None]) -> None:
        """Drain it, wait for its end, forget it."""


def roll(fleet: Fleet[R], wanted: int, watch: Callable[[str], None], *, back: bool = False) -> None:
    """New replica ready → into the edge → one old one drained and gone, until there are WANTED and no others.

    BACK goes below WANTED where it must: a replica too few is better than wrong answers.
    """
    keep, old, dead = _sort_out(fleet, wanted)
    leaving = len(old) + len(dead)
    fleet.begin_stop([*dead, *(old if back and keep else [])])
    for one in dead:
        fleet.stop(one, partial(watch, "removing a replica that does not serve"))
    for one in keep:
        fleet.admit(one, partial(watch, "waiting for the edge"))
    for number in range(len(keep) + 1, wanted + 1):
        where = f"replica {number} of {wanted}"
        if len(fleet.all()) > wanted:
            fleet.stop(old.pop(0), partial(watch, f"{where}: draining an old one"))
        taken = {fleet.slot(one) for one in fleet.all()}
        free = next(slot for slot in count(fleet.first_slot) if slot not in taken)
        fresh = fleet.start(free, partial(watch, f"{where}: starting"))
        fleet.admit(fresh, partial(watch, f"{where}: entering the edge"))
    for one in old:
        fleet.stop(one, partial(watch, "draining the last old one"))
    if leaving:  # one that ended by itself did not drain, and a failed release may end at any moment
        settle(time.monotonic())


def _sort_out(fleet: Fleet[R], wanted: int) -> tuple[list[R], list[R], list[R]]:
    """The replicas that can stay, those to replace, and those that do not serve: going costs them no answer."""
    keep: list[R] = []
    old: list[R] = []
    dead: list[R] = []
    for one in fleet.all():
        right = len(keep) < wanted and fleet.right(one)
        (dead if not fleet.ready(one) else keep if right else old).append(one)
    return keep, old, dead
