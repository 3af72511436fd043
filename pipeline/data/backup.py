"""The story of a backup: check → dump → record. It takes no lock of a deploy; migrations keep out in the database."""

from __future__ import annotations

import logging

from pipeline.config.project import Environment, Project
from pipeline.data.healing import note_deaths
from pipeline.data.report import DataReport
from pipeline.data.summaries import Backup, list_backups
from pipeline.data.telling import Account, Telling, serving_release
from pipeline.errors import DeployFailed
from pipeline.system.progress import Progress
from pipeline.system.text import duration, size
from pipeline.targets import Target

__all__ = ["BackupStory"]

log = logging.getLogger(__name__)


class BackupStory(Telling):
    """One backup of an environment."""

    def __init__(self, project: Project, env: Environment, progress: Progress, target: Target) -> None:
        super().__init__("backup", project, env, progress, target)

    def tell(self) -> tuple[int, DataReport]:
        """Make a backup; return the exit code and the report."""
        with self.told() as account:
            with self.stage(account, "check") as stage:
                note_deaths(self.target, self.records)
                serving_release(self.target)
                before = next(iter(list_backups(self.target)), None)
                stage.note = f"the newest is {duration(before.age)} old" if before else "there is none yet"
            account.began = True
            with self.stage(account, "dump") as stage:
                stage.note = self._dump(account)
        assert account.report is not None
        return account.code, account.report

    def _dump(self, account: Account) -> str:
        """Let the program make it; return the figures."""
        answer = self.target.backups.run("backup", told=lambda line: self.live("dump", line))
        made = account.backup = Backup.of(answer["backup"])
        account.facts = {"seconds": made.seconds, "bytes": made.bytes, "rows": made.rows, "removed": answer["removed"]}
        for table in made.summary.get("shrunken", ()):
            account.remarks.append(f"{table['name']} has {table['rows']:,} rows, and had {table['before']:,}")
        if not made.encrypted:
            account.remarks.append("it is not encrypted: BACKUP_RECIPIENTS is not set")
        for line in account.remarks:
            log.warning(line)
        if problem := answer.get("problem"):  # it is whole here, and not where it would outlive this host
            raise DeployFailed(problem)
        rate = size(made.bytes / max(made.seconds, 0.001))
        figures = f"{made.rows:,} rows, {size(made.bytes)} in {duration(made.seconds)}, {rate}/s"
        account.verdict, account.code = "done", 0
        account.said = f"{self.env.name} is backed up as {made.name}, {made.place}: {figures}"
        return f"{made.name}: {figures}"
