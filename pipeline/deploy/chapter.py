"""What has become of a deploy, and the report of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.config.project import Environment
from pipeline.deploy.proving import Proof
from pipeline.deploy.report import DeployFacts, RollbackFacts, build_report
from pipeline.releases.model import Artifact
from pipeline.releases.records import Record, read_json
from pipeline.system.git import Source
from pipeline.system.progress import StageRecord

__all__ = ["Chapter", "now", "report_of_killed"]


@dataclass
class Chapter:
    """What has become of a deploy so far."""

    record: Record
    started: str
    new: Artifact | None = None
    old: Artifact | None = None
    touched: bool = False  # from here on, a failure is undone
    verdict: str = "failed"
    reason: str | None = None
    proof: Proof | None = None
    rollback: RollbackFacts | None = None
    code: int = 1
    stages: list[StageRecord] = field(default_factory=list)

    def report(
        self,
        env: Environment,
        url: str,
        source: Source,
        inside: tuple[str, Mapping[str, Any]] | None,
        remarks: Sequence[str],
    ) -> dict[str, Any]:
        """Return the report of the deploy, which ends now.

        `inside` is what was seen from beside the service, and `remarks` what the engine did meanwhile.
        """
        return build_report(
            DeployFacts(
                environment=env.name,
                target=env.target,
                url=url,
                number=self.record.number,
                release=self.new.name if self.new else None,
                previous=self.old.name if self.old else None,
                commit=source.commit,
                dirty=source.dirty,
                verdict=self.verdict,
                reason=self.reason,
                started=self.started,
                finished=now(),
                stages=self.stages,
                traffic=self.proof.result if self.proof else None,
                inside={"said": inside[0], **inside[1]} if inside else None,
                remarks=list(remarks),
                rollback=self.rollback,
                slow=self.proof.slow if self.proof else False,
            )
        )


def report_of_killed(record: Record, env: Environment, url: str) -> dict[str, Any]:
    """Return the report of a deploy that died before it wrote one, with what is known of it."""
    return build_report(
        DeployFacts(
            environment=env.name,
            target=env.target,
            url=url,
            number=record.number,
            release=record.release,
            previous=None,
            commit=record.commit,
            dirty=bool(read_json(record.folder / "begun.json").get("dirty")),
            verdict="interrupted",
            reason=f"the deploy died in stage `{record.stage}`, without a report",
            started=record.started or now(),
            finished=None,
            stages=[],
            traffic=None,
        )
    )


def now() -> str:
    """Return the time as RFC 3339 has it, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
