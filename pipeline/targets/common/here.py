"""What targets on one machine share: their records and their lock are files below `.slipway/ENV`."""

from __future__ import annotations

from contextlib import AbstractContextManager

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

    def lock(self) -> AbstractContextManager[None]:
        """Hold the lock on this machine."""
        return hold_lock(self.project.state(self.env.name) / "lock")

    def holder(self) -> Holder | None:
        """Return who deploys on this machine now."""
        return held_by(self.project.state(self.env.name) / "lock")
