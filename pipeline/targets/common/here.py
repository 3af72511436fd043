"""What the targets of one machine share: their records and their lock are files below `.slipway/ENV`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from pipeline.config.project import Environment, Project
from pipeline.releases.lock import Holder, held_by, hold_lock
from pipeline.releases.records import Records

__all__ = ["KeptHere"]


class KeptHere:
    """See `pipeline.targets.Target`."""

    project: Project
    env: Environment

    def records(self) -> Records:
        """The records of this machine."""
        return Records(self.project.state(self.env.name) / "releases")

    def lock(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """The lock of this machine."""
        return hold_lock(self.project.state(self.env.name) / "lock", say)

    def attest(self, report: Mapping[str, Any]) -> None:
        """Nobody else takes what ships on this machine."""

    def dismiss(self) -> None:
        """Nobody looks beside the proof, which is on the same machine."""

    def second_view(self, failed: int, sent: int) -> tuple[str, Mapping[str, Any]] | None:
        """On one machine there is no other place to look from."""
        del failed, sent
        return None

    def remarks(self) -> list[str]:
        """Nothing here changes the number of replicas but a deploy."""
        return []

    def holder(self) -> Holder | None:
        """Who deploys on this machine now."""
        return held_by(self.project.state(self.env.name) / "lock")
