"""The records of backups, restores and drills: `.slipway/ENV/data/NUMBER/`, as those of deploys are kept.

A record is locked while its story runs: one without a report that nobody holds belongs to a story that was killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.config.project import Project
from pipeline.data.report import Kind
from pipeline.releases.lock import held_by, hold_lock
from pipeline.releases.records import Record, Records, read_json, write_json

__all__ = ["DataRecords", "facts_of"]

LOCK, BEGUN, REPORT = "running", "begun.json", "report.json"
TRIES = 20  # for the next number, which another story may take at the same moment


class DataRecords(Records):
    """Those of one environment."""

    @classmethod
    def of(cls, project: Project, env: str) -> DataRecords:
        """Return those of the environment `env`."""
        return cls(project.state(env) / "data")

    @contextmanager
    def running(self, kind: Kind, facts: Mapping[str, Any]) -> Iterator[Record]:
        """Begin the record of a story of `kind`, which runs until the block ends. `UsageError` in it leaves none."""
        folder = self._next_folder()
        with hold_lock(folder / LOCK):
            write_json(folder / BEGUN, {"kind": kind, **facts})  # after it was locked: until then it is no record
            yield self._read(int(folder.name))

    def forget(self, record: Record) -> None:
        """Remove a record of what never began."""
        shutil.rmtree(record.folder)

    def dead(self) -> list[Record]:
        """Return those of stories that were killed."""
        open_ones = [one for one in self.all() if one.verdict is None and (one.folder / BEGUN).exists()]
        return [one for one in open_ones if held_by(one.folder / LOCK) is None]

    def last(self, kind: Kind) -> Mapping[str, Any] | None:
        """Return the newest report of `kind`; None where there is none."""
        reports = (read_json(record.folder / REPORT) for record in reversed(self.all()))
        return next((report for report in reports if report.get("kind") == kind), None)

    def _next_folder(self) -> Path:
        for left in reversed(range(TRIES)):
            folder = self.folder / str(max((record.number for record in self.all()), default=0) + 1)
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                if not left:
                    raise
            else:
                return folder
        raise AssertionError


def facts_of(record: Record) -> dict[str, Any]:
    """Return what is known of a story since it began: its `kind`, and what it noted."""
    return read_json(record.folder / BEGUN)
