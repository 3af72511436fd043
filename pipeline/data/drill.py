"""The story of a drill: check → drill → record. The newest backup, restored where nobody is served, and tried there."""

from __future__ import annotations

import logging

from pipeline.config.project import Environment, Project
from pipeline.data.healing import note_deaths
from pipeline.data.report import DataReport
from pipeline.data.summaries import LATEST, Backup, find_backup, list_backups
from pipeline.data.telling import Account, Telling, serving_release
from pipeline.errors import DeployFailed
from pipeline.releases.model import Artifact, short
from pipeline.system.progress import Progress
from pipeline.system.text import duration
from pipeline.targets import Target

__all__ = ["DrillStory", "too_old"]

log = logging.getLogger(__name__)


class DrillStory(Telling):
    """One drill of an environment. It takes no lock."""

    def __init__(self, project: Project, env: Environment, progress: Progress, target: Target) -> None:
        super().__init__("drill", project, env, progress, target)

    def tell(self) -> tuple[int, DataReport]:
        """Try the newest backup; return the exit code and the report."""
        with self.told() as account:
            with self.stage(account, "check") as stage:
                note_deaths(self.target, self.records)
                serving, backups = serving_release(self.target), list_backups(self.target)
                if not backups:  # not a wrong argument: it is what a drill is there to find
                    raise DeployFailed(f"{self.env.name} has no backup to try: `nox -s backup -- {self.env.name}`")
                backup = account.backup = find_backup(backups, LATEST, self.env.name)
                stage.note = f"{backup.name}, {duration(backup.age)} old"
            account.began = True
            with self.stage(account, "drill") as stage:
                stage.note = self._drill(account, backup, serving)
        assert account.report is not None
        return account.code, account.report

    def _drill(self, account: Account, backup: Backup, serving: Artifact) -> str:
        """Try `backup` with the release that is `serving`; return the figures."""
        age = backup.age
        done = self.target.backups.drill(backup.name, serving, lambda line: self.live("drill", line))
        took, migrated = sum(done["seconds"].values()), done["drilled"]["migrated"]
        account.facts = {
            "rpo_seconds": round(age),
            "rto_seconds": round(took, 1),
            "release": serving.name,
            "rows": done["drilled"]["rows"],
            "migrated": migrated,
            "sent": done["sent"],
            "seconds": done["seconds"],
        }
        figures = f"RPO {duration(age)} (the age of the backup), RTO {duration(took)} (until it answered)"
        if reason := too_old(self.env, backup):
            raise DeployFailed(f"{backup.name} can be restored, and {reason}; {figures}")
        more = f" after {len(migrated)} migrations" if migrated else ""
        account.verdict, account.code = "proved", 0
        account.said = (
            f"{backup.name} of {self.env.name} was restored, and release {short(serving.name)} answered its"
            f" {done['sent']} requests on it{more}: {figures}"
        )
        return figures


def too_old(env: Environment, backup: Backup) -> str | None:
    """Return why `backup` is too old to be the newest of `env`; None where it is not, or nobody said what is."""
    if env.backups is None or backup.age <= env.backups.seconds:
        return None
    return f"it is {duration(backup.age)} old, where backups.max_age is {env.backups.max_age}"
