"""How far a rotation is, in a file that only its owner can read; no value of a secret is in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.config.sources import ROLE
from pipeline.releases.records import read_json, write_json
from pipeline.system.text import digits

__all__ = ["State", "marks_of"]

FILE = "rotation.json"


@dataclass
class State:
    """The rotation of `secret`: how many steps are `done`, and what the secrets were when the next one began.

    `marks`: of a secret a part of its hash, of the database's login its name; empty where that step has not begun.
    `stopped`: a person was told what to do next. `not_before`: when the rotation may go on (RFC 3339).
    """

    secret: str
    since: str
    done: int = 0
    marks: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    not_before: str = ""

    @classmethod
    def read(cls, folder: Path) -> State | None:
        """Return the rotation that is unfinished in `folder`, that of an environment; None where there is none."""
        kept = read_json(folder / FILE)
        return cls(**kept) if kept else None

    def keep(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, asdict(self))

    def next(self, folder: Path) -> None:
        """Note that a step is done."""
        self.done, self.marks, self.stopped, self.not_before = self.done + 1, {}, False, ""
        self.keep(folder)

    @staticmethod
    def forget(folder: Path) -> None:
        """Note that none is unfinished."""
        (folder / FILE).unlink(missing_ok=True)


def marks_of(names: Iterable[str], values: Mapping[str, str]) -> dict[str, str]:
    """Return what tells the values of the secrets `names` apart without revealing them."""
    return {name: values.get(name, "") if name == ROLE else digits(values.get(name)) for name in names}
