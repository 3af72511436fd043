"""The rolling update that the targets share, on replicas that are entries of a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from pipeline.errors import DeployFailed
from pipeline.targets.common import rolling
from pipeline.targets.common.rolling import roll


@dataclass(frozen=True)
class One:
    """A replica: where it is, and of what."""

    slot: int
    release: str
    ready: bool = True


@dataclass
class Listed:
    """A fleet without an engine: what was asked of it, and how many served after each step."""

    first_slot: ClassVar[int] = 1

    there: list[One]
    release: str = "new"
    breaks: bool = False
    steps: list[str] = field(default_factory=list)
    fewest: int = 99

    def all(self) -> Sequence[One]:
        """A copy: the list changes while it is gone through."""
        return list(self.there)

    def ready(self, one: One) -> bool:
        """As it is."""
        return one.ready

    def right(self, one: One) -> bool:
        """By its release."""
        return one.release == self.release

    def slot(self, one: One) -> int:
        """As it is."""
        return one.slot

    def start(self, slot: int, watch: Callable[[], None]) -> One:
        """At once, or never."""
        watch()
        if self.breaks:
            raise DeployFailed("it did not start")
        self.there.append(One(slot, self.release))
        return self.there[-1]

    def admit(self, one: One, watch: Callable[[], None]) -> None:
        """Noted."""
        watch()
        self.steps.append(f"in {one.slot}")

    def begin_stop(self, leaving: Sequence[One]) -> None:
        """Noted."""
        self.steps += [f"drain {one.slot}" for one in leaving]

    def stop(self, one: One, watch: Callable[[], None]) -> None:
        """Gone."""
        watch()
        self.there.remove(one)
        self.steps.append(f"out {one.slot}")
        self.fewest = min(self.fewest, sum(each.ready for each in self.there))


@pytest.fixture(autouse=True)
def _no_edge_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "settle", lambda _: None)


def ignore(line: str) -> None:
    """Nobody watches."""


class TestRoll:
    def test_fills_what_is_empty(self) -> None:
        """From the first slot on, each in the edge before the next starts."""
        fleet = Listed([])
        roll(fleet, 2, ignore)
        assert fleet.steps == ["in 1", "in 2"]

    def test_never_has_fewer_than_wanted(self) -> None:
        """New ones first, in the slots that are free; an old one goes when there is one too many."""
        fleet = Listed([One(1, "old"), One(2, "old")])
        roll(fleet, 2, ignore)
        assert fleet.steps == ["in 3", "out 1", "in 1", "out 2"]
        assert fleet.there == [One(3, "new"), One(1, "new")]
        assert fleet.fewest == 2

    def test_keeps_what_is_right(self) -> None:
        """A rollout that was broken off is carried on, and more than are wanted go."""
        fleet = Listed([One(1, "new"), One(2, "new"), One(3, "new"), One(4, "old")])
        roll(fleet, 2, ignore)
        assert fleet.there == [One(1, "new"), One(2, "new")]

    def test_removes_at_once_what_serves_nobody(self) -> None:
        """It takes no place that a replica could have."""
        fleet = Listed([One(1, "old"), One(2, "new", ready=False)])
        roll(fleet, 1, ignore)
        assert fleet.steps == ["drain 2", "out 2", "in 2", "out 1"]
        assert fleet.fewest == 1

    def test_on_the_way_back_the_wrong_ones_drain_at_once(self) -> None:
        """Where one of the release serves, wrong answers end before the number is whole again."""
        fleet = Listed([One(1, "old"), One(2, "bad")], release="old")
        roll(fleet, 2, ignore, back=True)
        assert fleet.steps == ["drain 2", "in 1", "in 3", "out 2"]
        alone = Listed([One(1, "bad")], release="old")
        roll(alone, 1, ignore, back=True)
        assert alone.steps == ["in 2", "out 1"]

    def test_touches_nothing_that_serves_for_one_that_does_not_start(self) -> None:
        """The error passes through."""
        fleet = Listed([One(1, "old"), One(2, "old")], breaks=True)
        with pytest.raises(DeployFailed, match="did not start"):
            roll(fleet, 2, ignore)
        assert fleet.steps == []

    def test_says_what_it_waits_for(self) -> None:
        """A person sees which replica, of how many, and what of it."""
        said: list[str] = []
        roll(Listed([One(1, "old")]), 1, said.append)
        assert said == [
            "replica 1 of 1: starting",
            "replica 1 of 1: entering the edge",
            "draining the last old replica",
        ]
