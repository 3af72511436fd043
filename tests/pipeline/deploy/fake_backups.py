"""The backups of the environment without an engine: summaries in a list, databases by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import DeployFailed, ProgramFailed
from pipeline.releases.model import Artifact
from pipeline.targets import Backups
from pipeline.targets.common.backups import MODULE
from pipeline.targets.common.roles import LONGEST
from tests.pipeline.deploy.script import Script

__all__ = ["FakeBackups", "summary"]

SERVING = "board"
TABLE = "releases"


def summary(name: str = "20261128T160000Z-000001", **values: Any) -> dict[str, Any]:
    """Return what the program says of a backup: of one table with 3 rows, unless `values` say otherwise."""
    return {
        "schema": 1,
        "name": name,
        "started": "2026-11-28T16:00:00+00:00",
        "finished": "2026-11-28T16:00:02+00:00",
        "snapshot": "2026-11-28T16:00:00+00:00",
        "project": "board",
        "environment": "here",
        "release": "a",
        "revision": "0001",
        "database": SERVING,
        "server": "18.4",
        "programs": "18.4",
        "compression": "zstd",
        "encrypted": [],
        "tables": [{"name": TABLE, "rows": 3}],
        "bytes": 2048,
        "here": True,
        "away": False,
        **values,
    }


@dataclass
class FakeBackups(Backups):
    """Backups as `summaries`, newest first, of the table `releases`; `rows` in it now.

    `databases` has the number of rows in each database; `bad`: what is wrong with a backup, by its name. `scheduled` is
    the report of a drill that ran without the pipeline.
    """

    script: Script
    summaries: list[dict[str, Any]] = field(default_factory=list)
    databases: dict[str, int] = field(default_factory=lambda: {SERVING: 5})
    bad: dict[str, str] = field(default_factory=dict)
    scheduled: dict[str, Any] | None = None
    next: dict[str, Any] = field(default_factory=dict)  # of the summary of the next backup
    problem: str | None = None  # with where they are kept
    others: list[str] = field(default_factory=list)  # projects that have some in the same place
    schema: str = "same"  # how the revision of a backup stands to the release
    pending: list[str] = field(default_factory=list)  # migrations, in a drill
    caches: int | None = 1

    def run(
        self,
        verb: str,
        *arguments: str,
        told: Callable[[str], None],
        given: Mapping[str, Any] | None = None,
        seconds: float = LONGEST,
    ) -> dict[str, Any]:
        """Answer as the program does."""
        self.script.do(verb, " ".join(arguments))
        told("50 % of 2.0 kB")
        answer: dict[str, Any] = getattr(self, f"_{verb}")(*arguments)
        return answer

    def fetch(self, name: str, folder: Path, told: Callable[[str], None]) -> None:
        """Write one file."""
        self.script.do("fetch", name)
        (folder / "manifest.json").write_text('{"files": []}', encoding="utf-8")

    def drill(self, name: str, serving: Artifact, told: Callable[[str], None]) -> dict[str, Any]:
        """Find what is wrong with the backup."""
        self.script.do("drill", f"{name} with {serving.name}")
        if name in self.bad:
            raise DeployFailed(self.bad[name])
        seconds = {"restore": 2.5, "try": 0.5}
        drilled = {**self._restore(name, "--into", "drill")["restored"], "migrated": self.pending}
        return {"drilled": drilled, "sent": len(serving.requests), "seconds": seconds}

    def drilled(self) -> Mapping[str, Any] | None:
        """Say what was told."""
        return self.scheduled

    def hint(self) -> str:
        """Name no schedule."""
        return "run `nox -s backup -- here` each night"

    def _one(self, name: str) -> dict[str, Any]:
        found = next((one for one in self.summaries if one["name"] == name), None)
        if found is None:
            raise ProgramFailed(MODULE, f"no backup {name}")
        return found

    def _backup(self) -> dict[str, Any]:
        rows = [{"name": TABLE, "rows": self.databases[SERVING]}]
        made = summary(f"20261128T160000Z-00000{len(self.summaries) + 1}", **{"tables": rows, **self.next})
        self.summaries.insert(0, made)
        return {"backup": made, "removed": [], **({"problem": self.problem} if self.problem else {})}

    def _list(self) -> dict[str, Any]:
        answer = {"backups": self.summaries, "others": self.others}
        return {**answer, **({"problem": self.problem} if self.problem else {})}

    def _verify(self, name: str) -> dict[str, Any]:
        if name in self.bad:
            raise ProgramFailed(MODULE, self.bad[name])
        found = self._one(name)
        return {"verified": {**{key: found[key] for key in ("name", "project", "revision", "bytes")},
                             "schema": self.schema, "seconds": 0.1}}  # fmt: skip

    def _restore(self, name: str, _: str, database: str) -> dict[str, Any]:
        rows = self.databases[database] = self._one(name)["tables"][0]["rows"]
        return {"restored": {"name": name, "database": database, "rows": rows, "seconds": 1.0, "migrated": []}}

    def _compare(self, database: str) -> dict[str, Any]:
        here, there = self.databases[database], self.databases[SERVING]
        tables = [{"name": TABLE, "rows": here, "serving": there}]
        lost = max(0, there - here)
        return {"compared": {"database": database, "serving": SERVING, "since": "2026-11-28T16:00:00+00:00",
                             "lost": lost, "tables": tables}}  # fmt: skip

    def _swap(self, serving: str, wanted: str) -> dict[str, Any]:
        before = f"before_{wanted}"
        if wanted in self.databases:
            self.databases[before] = self.databases[serving]
            self.databases[serving] = self.databases.pop(wanted)
        return {
            "swapped": {"database": serving, "before": before, "seconds": 0.1, "sessions": 2, "caches": self.caches}
        }

    def _drop(self, database: str) -> dict[str, Any]:
        assert database != SERVING
        return {"dropped": database if self.databases.pop(database, None) is not None else None}
