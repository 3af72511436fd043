"""The story of a new major of PostgreSQL: a server beside, tried on a copy; then no writes, the copy anew, the switch.

    check → dump → restore → try → (ask) → close → last dump → last restore → switch → prove → record

Unlike a restore it loses nothing that was acknowledged: from `close` on nobody writes, until the new server serves.
People go on reading until the switch. What fails before it leaves the old server as it was; what fails after it brings
that back.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import asdict

from pipeline.data.report import DataReport
from pipeline.data.summaries import Backup, list_backups
from pipeline.data.telling import Account, serving_release
from pipeline.errors import DeployFailed, Interrupted
from pipeline.releases.model import Artifact
from pipeline.restore.replacing import Agree, Replacing, turned_away
from pipeline.system.protection import best_effort, deaf, problems_of
from pipeline.system.text import duration, now, size
from pipeline.targets import NextMajor, Upgrade

__all__ = ["UpgradeStory"]

log = logging.getLogger(__name__)


class UpgradeStory(Replacing):
    """One move of an environment's data to a new major."""

    story = "upgrade"
    _dumped = 0.0  # seconds that the last dump took

    def tell(self, *, agree: Agree) -> tuple[int, DataReport | None]:
        """Move the data to the major that is defined; return the exit code and the report, None if it is there.

        `agree(words)` asks whether to go on.
        """
        with ExitStack() as stack:
            with self.progress.stage("check") as stage:
                stack.enter_context(self.target.lock())
                upgrade = self.target.database.upgrade()
                self._heal()
                serving = serving_release(self.target)
                plan = upgrade.plan()
                if plan is None:
                    stage.note = "PostgreSQL is of the major that is defined: there is nothing to do"
                    return 0, None
                stage.note = self._planned(plan)
            told = stack.enter_context(self.told(release=serving.name, **asdict(plan)))
            told.began, told.facts = True, asdict(plan)
            try:
                self._rehearse(told, serving, plan, upgrade)
                if self._agreed(told, plan, agree):
                    self._move(told, serving, plan, upgrade)
                else:
                    upgrade.abandon(plan.place)
            except (Exception, Interrupted) as error:  # noqa: BLE001 - a fault of our own is undone like any other
                self.failed(told, error)
                with deaf():
                    self._undo(told, serving, plan, upgrade)
        assert told.report is not None
        return told.code, told.report

    def _planned(self, plan: NextMajor) -> str:
        newest = next(iter(list_backups(self.target)), None)
        last = f"the last backup took {duration(newest.seconds)}" if newest else "there is no backup yet"
        return f"PostgreSQL {plan.old} to {plan.new}: {size(plan.bytes)}, {size(plan.free)} free; {last}"

    # --- the stages ---

    def _rehearse(self, told: Account, serving: Artifact, plan: NextMajor, upgrade: Upgrade) -> None:
        """Copy the data into the new server while everything goes on, and try that: it tells whether, and how long."""
        backup = self._dump(told, "dump")
        with self.stage(told, "restore", begun=True) as stage:
            told.facts["begun"] = True
            upgrade.begin(plan.place, lambda line: self.live("restore", line))
            began = time.monotonic()
            stage.note = self._fill("restore", backup, upgrade)
        restored = time.monotonic() - began
        told.facts["expected_seconds"] = round(self._dumped + restored, 1)
        with self.stage(told, "try") as stage:
            stage.note = self._try(
                told,
                serving,
                lambda journal, output: upgrade.trial(
                    serving, lambda line: self.live("try", line), journal=journal, log=output
                ),
                f"PostgreSQL {plan.new}",
            )

    def _fill(self, stage: str, backup: Backup, upgrade: Upgrade) -> str:
        """Restore the backup into the new server; return the figures."""
        made = upgrade.fill(backup.name, lambda line: self.live(stage, line))
        return f"{made['rows']:,} rows into the new server, {duration(made['seconds'])}"

    def _dump(self, told: Account, name: str) -> Backup:
        with self.stage(told, name) as stage:
            began = time.monotonic()
            answer = self.target.backups.run("backup", told=lambda line: self.live(name, line))
            self._dumped = time.monotonic() - began
            made = told.backup = Backup.of(answer["backup"])
            stage.note = f"{made.name}: {made.rows:,} rows, {size(made.bytes)} in {duration(made.seconds)}"
            if problem := answer.get("problem"):
                raise DeployFailed(problem)
        return made

    def _agreed(self, told: Account, plan: NextMajor, agree: Agree) -> bool:
        """Say what it costs, and ask; return the answer."""
        for name in plan.others:
            told.remarks.append(f"the database {name} is not copied: it stays in {plan.before}")
        log.warning(
            f"writes to {self.env.name} will get 503 with Retry-After for about"
            f" {duration(told.facts['expected_seconds'])}, as long as this took, and reads for a few seconds of that"
        )
        for line in told.remarks:
            log.warning(line)
        if agree(f"Go on, and let PostgreSQL {plan.new} serve {self.env.name}?"):
            return True
        told.verdict, told.reason = "declined", "nobody agreed to the upgrade"
        told.said = f"PostgreSQL {plan.old} serves {self.env.name} as before: {told.reason}"
        return False

    def _move(self, told: Account, serving: Artifact, plan: NextMajor, upgrade: Upgrade) -> None:
        """Copy the data once more while nobody writes, let the new server serve, and prove that."""
        with self._window(serving) as window:
            time.sleep(self._quiet)
            window.touch()
            closed = time.monotonic()
            with self.stage(told, "close") as stage:
                upgrade.close()
                stage.note = "nobody writes until the new server serves; reads go on"
            backup = self._dump(told, "last dump")
            with self.stage(told, "last restore") as stage:
                stage.note = self._fill("last restore", backup, upgrade)
            with self.stage(told, "switch", switched_at=now()) as stage:
                told.facts["switched_at"] = now()
                window.swap()
                upgrade.switch()
                seen = self._seen = self._settle(window, "switch")
                told.facts["closed_seconds"] = round(time.monotonic() - closed, 1)
                told.facts["window"] = seen.document()
                stage.note = turned_away(seen)
        if seen.early[0]:
            told.remarks.append(f"{seen.early[0]} of {seen.early[1]} reads got 503 while only writes had to")
        if seen.failed:
            sent = seen.sent + seen.early[1]
            raise DeployFailed(f"{seen.failed} of {sent} requests failed in the switch: {seen.failures[0]}")
        self._prove(told, serving)
        if int(str(backup.summary["programs"]).partition(".")[0]) < int(plan.new.partition(".")[0]):
            told.remarks.append(
                f"the next backup needs the programs of PostgreSQL {plan.new}: `nox -s deploy -- {self.env.name}` ships"
                " a release that has them"
            )
        told.verdict, told.code = "proved", 0
        with best_effort():  # what is put back is the new server since the switch
            self.target.fleet.keep()
        told.said = (
            f"PostgreSQL {plan.new} serves {self.env.name}: writes were refused for"
            f" {duration(told.facts['closed_seconds'])}; of reads, {turned_away(seen)}; the data of before is kept in"
            f" {plan.before}: `{plan.removal}` removes it"
        )

    # --- undoing ---

    def _undo(self, told: Account, serving: Artifact, plan: NextMajor, upgrade: Upgrade) -> None:
        """Let the old server serve and take writes; the new one goes, unless somebody may have written to it."""
        word = "was interrupted" if told.verdict == "interrupted" else "failed"
        try:
            if "switched_at" in told.facts and upgrade.switched(plan.place):
                end = self._back(told, serving, plan, upgrade)
            else:
                upgrade.abandon(plan.place if "begun" in told.facts else "")
                end = f"PostgreSQL {plan.old} serves as before, and takes writes"
        except Exception as second:  # noqa: BLE001 - the report is written whatever it is
            reason = problems_of(second)[0]
            told.verdict, told.code = "failed", 1
            end = f"WHAT SERVED BEFORE COULD NOT BE BROUGHT BACK: {reason} (`nox -s doctor -- {self.env.name}`)"
            log.error(end)
        told.said = f"The upgrade of {self.env.name} {word}: {told.reason}; {end}"

    def _back(self, told: Account, serving: Artifact, plan: NextMajor, upgrade: Upgrade) -> str:
        """Let the old server take its place again, and prove that; return the outcome in words."""
        written = (told.facts.get("traffic") or {}).get("writes_acknowledged", 0)
        self._forget_writes(told)  # they are in the new server alone
        before = len(self.progress.stages)
        first = self._seen
        with self._window(serving, first.broken) as window, self.stage(told, "switch back") as stage:
            window.touch()
            upgrade.switch_back(plan.place)
            stage.note = turned_away(self._settle(window, "switch"))
        self._prove_back(told, serving, first)
        told.facts["undone"] = {"verdict": "proved", "stages": [asdict(one) for one in self.progress.stages[before:]]}
        told.verdict = told.verdict if told.verdict == "interrupted" else "undone"
        return (
            f"PostgreSQL {plan.old} serves again, without what was written since {told.facts['switched_at']}"
            f" ({written} writes of the proof among it), which is in {plan.place}"
        )
