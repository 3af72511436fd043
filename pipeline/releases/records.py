"""The release records of an environment: `.slipway/ENV/releases/NUMBER/`, one for each deploy and rollback.

`begun.json` is written before anything is touched, `report.json` when it is over; a record with the first and
without the second belongs to a deploy that was killed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.releases.model import stays
from pipeline.system.files import write_whole

__all__ = ["Record", "Records"]

KEPT_REPORTS = 100
SHORTEST_NAME = 4  # of a release's name, as git abbreviates


@dataclass(frozen=True)
class Record:
    """One deploy or rollback. `verdict` is None while it runs, and for one that was killed."""

    number: int
    folder: Path
    release: str | None
    verdict: str | None
    stayed: bool  # what it shipped served from then on: it was proved, or kept though that was inconclusive
    reason: str | None
    started: str | None
    finished: str | None
    commit: str | None
    dirty: bool  # files differed from the commit
    stage: str | None
    watch: str | None  # what became of its watch, in words


class Records:
    """The records below a folder. Lists of them are oldest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[Record]:
        """Return every record."""
        numbers = [int(path.name) for path in self.folder.glob("*") if path.name.isdigit()]
        return [self._read(number) for number in sorted(numbers)]

    def begin(self, facts: dict[str, Any]) -> Record:
        """Take the next number for a deploy that starts now, note `facts` of it, and return its record."""
        number = max((record.number for record in self.all()), default=0) + 1
        folder = self.folder / str(number)
        folder.mkdir(parents=True)
        write_json(folder / "begun.json", facts)
        return self._read(number)

    def note(self, record: Record, **facts: Any) -> None:
        """Add `facts` (the stage, the release) to what is known of a running deploy."""
        path = record.folder / "begun.json"
        write_json(path, {**read_json(path), **facts})

    def refresh(self) -> None:
        """Read what others did since: a no-op, except where records are kept elsewhere, too."""

    def publish(self, record: Record) -> None:
        """Let others know what became of `record`: a no-op, except where records are kept elsewhere, too."""

    def killed(self) -> list[Record]:
        """Return the deploys that died without a report. Only correct while the environment's lock is held."""
        return [record for record in self.all() if record.verdict is None]

    def serving(self) -> Record | None:
        """Return the newest record that stayed: that of what serves, unless something went wrong since."""
        return next((record for record in reversed(self.all()) if record.stayed), None)

    def before(self, release: str | None) -> Record | None:
        """Return the last record of a release that served before the first deploy of `release`; None for none."""
        stayed = [record for record in self.all() if record.stayed]
        names = [record.release for record in stayed]
        first = names.index(release) if release in names else len(names)
        return stayed[first - 1] if first else None

    def replaced(self, record: Record) -> Record | None:
        """Return the newest record of another release that served before `record`; None for none."""
        others = [one for one in self.all() if one.stayed and one.number < record.number]
        return next((one for one in reversed(others) if one.release != record.release), None)

    def previous(self) -> Record:
        """Return what `rollback` goes back to: the last release before the first deploy of the one that serves.

        Raise `UsageError` where there is none.
        """
        serving = self.serving()
        if not serving:
            raise UsageError(
                "no release is recorded as proved yet, so there is none to go back to: `nox -s deploy` first"
            )
        found = self.before(serving.release)
        if not found:
            raise UsageError(
                f"release {serving.release} is the oldest one recorded: there is none to go back to;"
                " name one with `--release` (`nox -s releases` lists them)"
            )
        return found

    def find(self, reference: str) -> Record:
        """Return the record with that number, or the newest one of the release with that name (or its beginning).

        Raise `UsageError` where there is none, or the name fits more than one release.
        """
        records = [record for record in self.all() if record.release]
        by_number = [record for record in records if reference.isdigit() and record.number == int(reference)]
        by_name = [
            record
            for record in records
            if (record.release or "").removeprefix("sha256:").startswith(reference.removeprefix("sha256:"))
            and len(reference) >= SHORTEST_NAME
        ]
        matching = by_number or by_name
        if not matching:
            raise UsageError(f"no release `{reference}` is recorded: `nox -s releases` lists the numbers and names")
        if not by_number and len({record.release for record in by_name}) > 1:
            raise UsageError(
                f"`{reference}` fits more than one release: {', '.join(sorted({r.release or '' for r in by_name}))}"
            )
        return matching[-1]

    def retained(self, count: int) -> list[str]:
        """Return the names of the `count` newest different releases that stayed, newest first.

        Those are the ones to roll back to.
        """
        names = [record.release for record in reversed(self.all()) if record.stayed and record.release]
        return list(dict.fromkeys(names))[:count]

    def prune(self) -> None:
        """Forget the oldest reports beyond `KEPT_REPORTS`."""
        for record in self.all()[:-KEPT_REPORTS]:
            shutil.rmtree(record.folder)

    def _read(self, number: int) -> Record:
        folder = self.folder / str(number)
        begun, report = read_json(folder / "begun.json"), read_json(folder / "report.json")
        facts, verdict, watch = {**begun, **report}, report.get("verdict"), report.get("watch") or {}
        # What an alert wanted undone, and could not be: until somebody does, that is what one goes back from.
        stuck = verdict == "failed" and watch.get("outcome") == "fired"
        return Record(
            number=number,
            folder=folder,
            release=facts.get("release"),
            verdict=verdict,
            stayed=stuck or stays(verdict, undone=report.get("rollback") is not None),
            reason=facts.get("reason"),
            started=facts.get("started"),
            finished=facts.get("finished"),
            commit=facts.get("commit"),
            dirty=bool(facts.get("dirty")),
            stage=begun.get("stage"),
            watch=watch.get("said"),
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, empty where the file does not exist or was cut short by a crash."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path`, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")
