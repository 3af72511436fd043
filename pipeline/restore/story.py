"""The story of a restore: check → restore → try → swap → prove → record; where the proof fails: swap back → prove.

A backup goes into a new database beside the one that serves, and is swapped in by name. What was acknowledged since the
backup is gone by definition: the story says how much that is, and asks, before it goes on.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from pipeline.data.report import DataReport
from pipeline.data.summaries import Backup, find_backup, list_backups
from pipeline.data.telling import Account, serving_release
from pipeline.errors import DeployFailed, Interrupted
from pipeline.releases.model import Artifact, short
from pipeline.restore.replacing import Agree, Replacing, Trial, turned_away
from pipeline.restore.window import Seen
from pipeline.system.protection import best_effort, deaf, problems_of
from pipeline.system.text import duration, size

__all__ = ["RestoreStory"]

log = logging.getLogger(__name__)


class RestoreStory(Replacing):
    """One restore of an environment."""

    story = "restore"

    def tell(self, reference: str, *, agree: Agree, beside: str | None = None) -> tuple[int, DataReport]:
        """Restore the backup that `reference` means; return the exit code and the report.

        `agree(words)` asks whether to go on. With `beside`, a name, the database of that name is made and not swapped.
        """
        with ExitStack() as stack:
            with self.progress.stage("check") as stage:
                stack.enter_context(self.target.lock())
                self._heal()
                serving = serving_release(self.target)
                backup = find_backup(list_backups(self.target), reference, self.env.name)
                stage.note = f"{backup.name}, {duration(backup.age)} old, {size(backup.bytes)}"
            told = stack.enter_context(self.told(release=serving.name, backup=backup.name))
            told.backup, told.began = backup, True
            try:
                self._bring_back(told, serving, backup, beside)
                if beside:
                    self._done_beside(told, backup, beside)
                elif self._agreed(told, backup, agree):
                    self._serve(told, serving, backup)
                else:
                    self._drop(told)
            except (Exception, Interrupted) as error:  # noqa: BLE001 - a fault of our own is undone like any other
                self.failed(told, error)
                with deaf():
                    self._undo(told, serving, beside)
        assert told.report is not None
        return told.code, told.report

    # --- the stages ---

    def _bring_back(self, told: Account, serving: Artifact, backup: Backup, beside: str | None) -> None:
        """Check the backup, restore it into a database beside, and try that."""
        database = beside or f"restored_{backup.name.lower().replace('-', '_')}"
        with self.stage(told, "verify") as stage:
            found = self._run("verify", backup.name)["verified"]
            if found["schema"] == "newer":
                raise DeployFailed(
                    f"{backup.name} is of revision {found['revision']}, which release {short(serving.name)} does not"
                    f" know: deploy the release that made it, {short(backup.release)}, or a newer one first"
                )
            stage.note = f"{size(found['bytes'])} as they were written"
        with self.stage(told, "restore", wanted=database, beside=bool(beside)) as stage:
            told.facts["wanted"] = database
            made = self._run("restore", backup.name, "--into", database)["restored"]
            told.facts |= {"rows": made["rows"], "migrated": made.get("migrated", [])}
            stage.note = f"{made['rows']:,} rows into {database}, {duration(made['seconds'])}"
        with self.stage(told, "try") as stage:
            stage.note = self._try(
                told, serving, self._trial(serving, database), "the restored database, so nobody is sent to it"
            )

    def _trial(self, serving: Artifact, database: str) -> Trial:
        """Return what sends each request to a replica on the restored database, which nobody else reaches."""
        return lambda journal, output: self.target.fleet.trial(
            serving, lambda line: self.live("try", line), journal=journal, log=output, tries=1, database=database
        )

    def _done_beside(self, told: Account, backup: Backup, database: str) -> None:
        told.verdict, told.code = "done", 0
        told.said = f"{backup.name} is restored into the database {database} beside the one that serves {self.env.name}"

    def _agreed(self, told: Account, backup: Backup, agree: Agree) -> bool:
        """Say what goes with a swap, and ask; return the answer."""
        compared = self._run("compare", told.facts["wanted"])["compared"]
        fewer = {one["name"]: (one["serving"] or 0) - (one["rows"] or 0) for one in compared["tables"]}
        lost = {name: rows for name, rows in fewer.items() if rows > 0}
        told.facts |= {"serving": compared["serving"], "since": compared["since"], "lost": compared["lost"]}
        told.facts["tables"] = compared["tables"]
        rows = ", ".join(f"{count:,} of {name}" for name, count in lost.items())
        gone = f"{compared['lost']:,} rows ({rows})" if lost else "no row by count, but what was changed or replaced"
        line = (
            f"what was written to {self.env.name} since {compared['since']} ({duration(backup.age)} ago) will be gone:"
            f" {gone}"
        )
        log.warning(line)
        told.remarks.append(line.replace("will be", "is"))
        if agree(f"Go on, and let {backup.name} serve {self.env.name}?"):
            return True
        told.verdict, told.reason = "declined", "nobody agreed to the swap"
        told.said = f"Nothing was changed on {self.env.name}: {told.reason}"
        return False

    def _serve(self, told: Account, serving: Artifact, backup: Backup) -> None:
        """Swap the restored database in, and prove that it serves."""
        seen = self._seen = self._swap(told, "swap", serving, told.facts["wanted"])
        told.facts["window"] = seen.document()
        if seen.failed:
            raise DeployFailed(f"{seen.failed} of {seen.sent} requests failed in the swap: {seen.failures[0]}")
        self._prove(told, serving, self._tried)
        told.verdict, told.code = "proved", 0
        told.said = (
            f"{backup.name} serves {self.env.name}: {turned_away(seen)}; {told.facts['lost']:,} rows written since are"
            f" gone; the database of before is kept as {told.facts['before']} until the next restore"
        )

    def _swap(
        self, told: Account, name: str, serving: Artifact, wanted: str, broken: tuple[str, ...] | None = None
    ) -> Seen:
        """Let the database `wanted` take the place of the one that serves; return what users saw of that.

        The paths that are `broken` by then need not be answered; without them, those are that fail for two seconds.
        """
        facts = {"serving": told.facts["serving"], "wanted": wanted}
        with self.stage(told, name, **facts) as stage, self._window(serving, broken) as window:
            time.sleep(self._quiet if broken is None else 0)
            window.touch()
            swapped = self._run("swap", facts["serving"], wanted)["swapped"]
            told.facts |= {"before": swapped["before"], "sessions": swapped["sessions"]}
            self.records.note(told.record, before=swapped["before"])
            seen = self._settle(window, "swap")
            stage.note = turned_away(seen)
        if swapped["caches"] is None:
            told.remarks.append("Redis did not answer: what is cached from before is served until it expires")
        return seen

    def _run(self, verb: str, *arguments: str) -> dict[str, Any]:
        stage = self.progress.stages[-1].name
        return self.target.backups.run(verb, *arguments, told=lambda line: self.live(stage, line))

    # --- undoing ---

    def _undo(self, told: Account, serving: Artifact, beside: str | None) -> None:
        """Bring the database of before back where another may serve; drop what was restored where none does."""
        end = "nothing that serves was touched"
        if told.stage in ("swap", "prove"):
            end = self._swapped_back(told, serving)
        elif "wanted" in told.facts and not beside:
            self._drop(told)
        word = "was interrupted" if told.verdict == "interrupted" else "failed"
        told.said = f"The restore of {self.env.name} {word}: {told.reason}; {end}"

    def _drop(self, told: Account) -> None:
        with best_effort():
            self.target.backups.run("drop", told.facts["wanted"], told=log.debug)

    def _swapped_back(self, told: Account, serving: Artifact) -> str:
        """Let the database of before serve again, and prove that; return the outcome in words."""
        before = len(self.progress.stages)
        undone: dict[str, Any] = {"verdict": "proved", "reason": None}
        try:
            if not self._was_swapped(told):
                return "the database of before still serves"
            # What the proof wrote is in the restored database alone.
            self._forget_writes(told)
            first = self._seen
            seen = self._swap(told, "swap back", serving, told.facts["before"], broken=first.broken)
            undone["window"] = seen.document()
            self._prove_back(told, serving, first)
        except Exception as second:  # noqa: BLE001 - the report is written whatever it is
            reason = problems_of(second)[0]
            undone |= {"verdict": "failed", "reason": reason}
            told.verdict, told.code = "failed", 1
            log.error(f"what served before could not be brought back: {reason}")
            return f"WHAT SERVED BEFORE COULD NOT BE BROUGHT BACK: {reason} (`nox -s doctor -- {self.env.name}`)"
        finally:
            told.facts["undone"] = {**undone, "stages": [asdict(one) for one in self.progress.stages[before:]]}
        told.verdict = told.verdict if told.verdict == "interrupted" else "undone"
        return "the database of before serves again"

    def _was_swapped(self, told: Account) -> bool:
        """Return whether the restored database serves: a swap that failed, or was stopped, may be done all the same."""
        if "before" in told.facts:
            return True
        serving, wanted = told.facts["serving"], told.facts["wanted"]
        if self.target.backups.run("drop", wanted, told=log.debug)["dropped"]:
            return False
        # It has another name by now: the one that serves.
        again = self.target.backups.run("swap", serving, wanted, told=log.debug)["swapped"]
        told.facts["before"] = again["before"]
        return True
