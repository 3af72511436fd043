"""How a story about data is told: its record, its stages, its report, whatever happens."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.project import Environment, Project
from pipeline.data.metrics import leave_metrics
from pipeline.data.records import DataRecords
from pipeline.data.report import DataReport, Kind, write_report
from pipeline.data.summaries import Backup
from pipeline.errors import DeployFailed, Interrupted, SlipwayError, UsageError
from pipeline.releases.model import Artifact
from pipeline.releases.records import Record
from pipeline.system.progress import Progress, StageRecord
from pipeline.system.protection import best_effort, deaf, problems_of
from pipeline.system.text import now
from pipeline.targets import Target

__all__ = ["LOG", "Account", "Telling", "serving_release"]

log = logging.getLogger(__name__)

LOG = "story.log"


@dataclass
class Account:
    """What has become of a story so far. `said` tells it in a sentence; without one, `reason` does."""

    record: Record
    stage: str = ""  # where it stands
    began: bool = False  # something was made or changed
    verdict: str = "failed"
    code: int = 1
    reason: str | None = None
    said: str = ""
    backup: Backup | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    report: DataReport | None = None  # once it is over
    at: float = field(default_factory=time.monotonic)  # when it began


class Telling:
    """What tells a story of one `kind` about the data of an environment."""

    def __init__(self, kind: Kind, project: Project, env: Environment, progress: Progress, target: Target) -> None:
        self.kind, self.env, self.progress, self.target = kind, env, progress, target
        self.project = project
        self.records = DataRecords.of(project, env.name)

    @contextmanager
    def told(self, **facts: Any) -> Iterator[Account]:
        """Keep the record of the story that the block tells; what it raises is its end, and does not leave it.

        A `UsageError` is no story: it leaves no record, unless the account says that it `began`.
        """
        with self.records.running(self.kind, {"started": now(), **facts}) as record:
            account = Account(record)
            try:
                yield account
            except (Exception, Interrupted) as error:
                if isinstance(error, UsageError) and not account.began:
                    self.records.forget(record)
                    raise
                self.failed(account, error)
            with deaf(), self.progress.stage("record") as stage:
                account.report = self._report(account)
                stage.note = self._record(account)

    @contextmanager
    def stage(self, account: Account, name: str, **facts: Any) -> Iterator[StageRecord]:
        """Note where the story stands, and `facts`, in case it is killed."""
        self.progress.transcript.keep(account.record.folder / LOG)
        account.stage = name
        with self.progress.stage(name) as stage:
            with best_effort() if account.reason else nullcontext():
                self.records.note(account.record, stage=name, **facts)
            yield stage

    def live(self, stage: str, line: str) -> None:
        """Show a line of the program's progress."""
        self.progress.live(stage, line)

    def failed(self, account: Account, error: Exception | Interrupted) -> None:
        """Note why the story ended."""
        problems = problems_of(error)
        account.reason, account.said = problems[0], ""
        account.verdict = "interrupted" if isinstance(error, Interrupted) else "failed"
        account.code = error.exit_code if isinstance(error, SlipwayError | Interrupted) else 1
        for problem in problems:
            log.error(problem)

    def _report(self, account: Account) -> DataReport:
        """Return the report of a story that ends now."""
        word = "was interrupted" if account.verdict == "interrupted" else "failed"
        said = account.said or f"The {self.kind} of {self.env.name} {word}: {account.reason}"
        stages = [one for one in self.progress.stages if one.outcome != "running"]
        return DataReport(
            kind=self.kind,
            environment=self.env.name,
            target=self.env.target,
            number=account.record.number,
            verdict=account.verdict,
            said=said,
            reason=account.reason,
            started=account.record.started or now(),
            finished=now(),
            seconds=round(time.monotonic() - account.at, 3),
            backup=account.backup.summary if account.backup else None,
            stages=tuple(stages),
            remarks=tuple(account.remarks),
            facts=account.facts,
        )

    def _record(self, account: Account) -> str:
        with best_effort():
            if account.report:
                write_report(account.record.folder, account.report)
        leave_metrics(self.project, self.env)
        with best_effort():
            self.records.prune()
        return f"{os.path.relpath(account.record.folder, self.project.root)}/report.md"


def serving_release(target: Target) -> Artifact:
    """Return the release that serves. Raise `DeployFailed` where none does, or its database does not run."""
    name, serving = target.env.name, target.records().serving()
    if serving is None:
        raise DeployFailed(f"nothing is deployed to {name} yet: `nox -s deploy -- {name}` first")
    release = target.releases.recorded(serving.release or "")
    if not target.database.runs(release):
        raise DeployFailed(f"the database of {name} does not run: `nox -s deploy -- {name}` starts it")
    return release
