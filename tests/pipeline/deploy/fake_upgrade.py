"""A second server without an engine: which of the two serves, whether the old one takes writes, and what each has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact
from pipeline.targets import NextMajor, Upgrade
from tests.pipeline.deploy.script import Script

__all__ = ["PLAN", "FakeUpgrade"]

PLAN = NextMajor(
    old="17.6",
    new="18",
    bytes=2048,
    free=4096,
    place="board_postgres-18",
    before="volume board_postgres",
    removal="docker volume rm board_postgres",
)


@dataclass
class FakeUpgrade(Upgrade):
    """`planned`: None where there is nothing to do. `copied`: the backup that the new server has; None: it is gone.

    `refuses`: what a plan says that cannot be; `asks` is what a replica on the new server gets wrong.
    """

    script: Script
    planned: NextMajor | None = PLAN
    refuses: str | None = None
    wrote: Smoked = field(default_factory=Smoked)
    writable: bool = True
    new_serves: bool = False
    there: bool = False
    copied: str | None = None

    def plan(self) -> NextMajor | None:
        """Say what was told."""
        if self.refuses:
            raise UsageError(self.refuses)
        return None if self.new_serves else self.planned

    def begin(self, place: str, tell: Callable[[str], None]) -> None:
        """Make it."""
        assert place
        self.there = True
        tell("starting the new server")
        self.script.do("begin")

    def fill(self, backup: str, told: Callable[[str], None]) -> dict[str, Any]:
        """Note what it has."""
        assert self.there
        self.copied = None
        self.script.do("fill", f"{backup}{'' if self.writable else ' while nobody writes'}")
        self.copied = backup
        return {"rows": 3, "seconds": 1.0}

    def trial(self, serving: Artifact, watch: Callable[[str], None], *, journal: Path, log: Path) -> Smoked:
        """Answer as told."""
        self.script.do("trial", f"{serving.name} on the new server")
        log.write_text("said\n")
        journal.write_text("")
        return replace(self.wrote)

    def close(self) -> None:
        """Refuse writes."""
        self.writable = False
        self.script.do("close")

    def switch(self) -> None:
        """Serve from the new one; what fails as `started` does so after that."""
        self.script.do("switch")
        assert self.copied
        self.new_serves = True
        self.script.fail_if_told("started")

    def switch_back(self, place: str) -> None:
        """Serve from the old one."""
        assert place
        self.script.do("switch back")
        self.new_serves, self.writable = False, True

    def abandon(self, place: str) -> None:
        """Take writes, and remove the other."""
        assert not self.new_serves, "people may have written to it"
        self.script.do("abandon", place)
        self.writable = True
        self.there = self.there and not place

    def switched(self, place: str) -> bool:
        """Say which serves."""
        assert place
        return self.new_serves

    def go_on(self, place: str) -> None:
        """Note it."""
        assert place
        self.script.do("go on")
