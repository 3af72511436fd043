"""What has become of a deploy, and the report of that."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.deploy.proving import Proof
from pipeline.proof.comparison import Slower
from pipeline.proof.report import Report, Rollback, Toll, TrafficReport, traffic_report
from pipeline.proof.smoke import Smoked
from pipeline.proof.verdict import until_undone
from pipeline.releases.model import Artifact, stays
from pipeline.releases.records import Record, read_json
from pipeline.system.files import write_whole
from pipeline.system.git import Source
from pipeline.system.progress import StageRecord
from pipeline.system.protection import best_effort
from pipeline.system.text import now
from pipeline.targets import Fleet, Target

__all__ = ["LOG", "Chapter", "keep_log", "source_of"]

LOG = "service.log"  # of the replicas of a release that failed


@dataclass
class Chapter:
    """What has become of a deploy so far. `source` is what it began with."""

    record: Record
    source: Source
    new: Artifact | None = None
    old: Artifact | None = None
    touched: bool = False  # from here on, a failure is undone
    verdict: str = "failed"
    reason: str | None = None
    proof: Proof | None = None
    back: Proof | None = None  # of what was brought back
    rollback: Rollback | None = None
    tried: Smoked | None = None  # what its trial saw, before anybody was sent to it
    unremoved: str | None = None  # why what the proofs wrote may still be there
    code: int = 1
    _keeping: threading.Thread | None = None
    _begun: float = field(default_factory=time.monotonic)

    @property
    def stays(self) -> bool:
        """Whether the new release serves from now on."""
        return stays(self.verdict, undone=self.rollback is not None)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return round(time.monotonic() - self._begun, 3)

    def undone(self, verdict: str, reason: str | None, stages: Sequence[StageRecord], *, whole: bool) -> None:
        """Note how undoing ended; where it did the `whole` of it, count the requests that failed until then."""
        for proof in (self.proof, self.back):
            if proof:
                proof.wait()
        if self._keeping:
            self._keeping.join()
        rollout, back = (proof.result if proof else None for proof in (self.proof, self.back))
        shares = until_undone(rollout, back) if whole and rollout else []
        if shares and self.reason and self.proof and self.proof.refusal:
            self.reason = self.proof.refusal.recounted(self.reason, shares)
        release = self.old.name if self.old else None
        self.rollback = Rollback(
            release=release,
            verdict=verdict,
            reason=reason,
            until_undone=Toll.of(shares) if shares else None,
            stages=tuple(stages),
            traffic=traffic_report(back, release),
        )

    def report(self, target: Target) -> Report:
        """Return the report of the deploy to `target` so far: nothing of its stages, and without an end."""
        release = self.new.name if self.new else self.record.release
        source = self.new.source if self.new else self.source
        return Report(
            environment=target.env.name,
            target=target.env.target,
            url=target.url,
            number=self.record.number,
            release=release,
            previous=self.old.name if self.old else None,
            commit=source.commit,
            dirty=source.dirty,
            verdict=self.verdict,
            reason=self.reason,
            started=self.record.started or now(),
            traffic=self._traffic(target, release),
            remarks=tuple(self._remarks()),
            unremoved=self.unremoved,
            log=self._log_command(target),
            rollback=self.rollback,
        )

    def _traffic(self, target: Target, release: str | None) -> TrafficReport | None:
        if not self.proof:
            return None
        slower, old = Slower(target.env.max_slowdown), self.old.name if self.old else None
        return traffic_report(self.proof.result, release, old=old, slower=slower, slow=self.proof.slow)

    def keep_log(self, fleet: Fleet) -> None:
        """Keep what the replicas of the failed release logged, beside the way back, which removes them."""
        self._keeping = keep_log(fleet, self.new.name if self.new else None, self.record.folder)

    def _log_command(self, target: Target) -> str:
        """Return the command that finds REQUEST_ID in what the service logged."""
        path = self.record.folder / LOG
        shown = f"nox -s logs -- {target.env.name} --request REQUEST_ID"
        return f"grep -F REQUEST_ID {os.path.relpath(path)}" if path.exists() else shown

    def _remarks(self) -> Iterator[str]:
        yield from self.proof.remarks if self.proof else ()
        if self.unremoved:
            yield f"what the proof wrote is still there, and the next deploy tries again to remove it: {self.unremoved}"


def keep_log(fleet: Fleet, release: str | None, folder: Path) -> threading.Thread:
    """Start to keep in `folder` what the replicas of `release` logged; return the thread that does."""

    def keep() -> None:
        with best_effort():
            said = fleet.log(release) if release else ""
            if said:
                write_whole(folder / LOG, said)

    keeping = threading.Thread(target=keep)
    keeping.start()
    return keeping


def source_of(record: Record) -> Source:
    """Return what a recorded release was deployed from."""
    # A recorded release comes back whole: the clone of whoever asks for it has no part in it.
    begun = read_json(record.folder / "begun.json")
    return Source(begun.get("commit"), dirty=bool(begun.get("dirty")))
