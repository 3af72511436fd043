"""What is done to the fake target, and what goes wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Killed", "Script"]


class Killed(BaseException):
    """The process ends here, as by `kill -9`: nothing of the pipeline may catch it."""


@dataclass
class Script:
    """What is done to a target: `asked` holds it, in order.

    `fails` is what a step raises instead, once; `meanwhile` what happens beside it.
    """

    asked: list[str] = field(default_factory=list)
    fails: dict[str, BaseException] = field(default_factory=dict)
    meanwhile: dict[str, Callable[[], object]] = field(default_factory=dict)

    def do(self, what: str, which: str = "") -> None:
        """Note that `what` is done to `which`, or fail as told."""
        self.asked.append(f"{what} {which}".strip())
        self.meanwhile.pop(what, bool)()
        self.fail_if_told(what)

    def fail_if_told(self, what: str) -> None:
        """Raise what `what` is told to, once."""
        if what in self.fails:
            raise self.fails.pop(what)
