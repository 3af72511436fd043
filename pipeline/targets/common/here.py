"""The part shared by targets on one machine: their records and their lock are files below `.slipway/ENV`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pipeline.config.project import Environment, Project
from pipeline.releases.lock import Holder, held_by, hold_lock
from pipeline.releases.records import Records

__all__ = ["KeptHere"]


class KeptHere:
    """The methods of `pipeline.targets.Target` that are alike for all targets on one machine."""

    project: Project
    env: Environment

    def records(self) -> Records:
        """Return the records on this machine."""
        return Records(self.project.state(self.env.name) / "releases")

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Hold the lock on this machine."""
        return hold_lock(self.project.state(self.env.name) / "lock", say)

    def attest(self, report: Mapping[str, Any]) -> None:
        """Do nothing, because no other environment takes what ships on this machine."""

    def dismiss(self) -> None:
        """Do nothing, because no second view runs beside the proof."""

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """Return None, because one machine has no second vantage."""
        del failed, sent
        return None

    def remarks(self) -> list[str]:
        """Return no remarks, because only a deploy changes the number of replicas here."""
        return []

    def holder(self) -> Holder | None:
        """Return who deploys on this machine now."""
        return held_by(self.project.state(self.env.name) / "lock")
