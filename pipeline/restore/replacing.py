"""What stories share in which other data takes the place of the data that serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from pipeline.config.project import Environment, Project
from pipeline.data.report import Kind
from pipeline.data.telling import Account, Telling
from pipeline.deploy.healing import heal
from pipeline.deploy.proving import Proof
from pipeline.deploy.removal import remove_rows
from pipeline.errors import DeployFailed
from pipeline.proof.report import traffic_report
from pipeline.proof.results import TrafficResult
from pipeline.proof.smoke import Smoked
from pipeline.releases.model import Artifact, short
from pipeline.restore.window import Ask, Seen, Window, ask_over_http
from pipeline.system.progress import Progress
from pipeline.system.waiting import attempts
from pipeline.targets import Target

__all__ = ["Agree", "Replacing", "Trial", "turned_away"]

QUIET_SECONDS = 2.0  # in which what serves is asked before anything is changed
RECOVERY_SECONDS = 60  # for answers after it
WRITES = "{}-writes.jsonl"  # in the record: of a proof, which does not remove them where it was killed
BACK = "back"  # of the proof that what served before serves again
Agree = Callable[[str], bool]
Trial = Callable[[Path, Path], Smoked]  # with the files of its journal and of its log
Answered = Callable[[str, str | None], Ask]


class Replacing(Telling):
    """A story of the kind `story`. `proof` judges what serves afterwards, `answered` makes what asks meanwhile."""

    story: ClassVar[Kind]

    def __init__(
        self,
        project: Project,
        env: Environment,
        progress: Progress,
        target: Target,
        *,
        proof: Callable[..., Proof] = Proof,
        answered: Answered = ask_over_http,
        quiet_seconds: float = QUIET_SECONDS,
        recovery_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        super().__init__(self.story, project, env, progress, target)
        self._begin_proof, self._answered = proof, answered
        self._quiet, self._recovery = quiet_seconds, recovery_seconds
        self._tried, self._seen = Smoked(), Seen()

    def _heal(self) -> None:
        """Clean up after a killed deploy, and after a killed story about the data."""
        records = self.target.records()
        records.refresh()
        heal(self.target, records, self.records)

    def _try(self, told: Account, serving: Artifact, trial: Trial, where: str) -> str:
        """Run the `trial` of the release that serves, with a journal and a log; return how that went `where`."""
        # Its writes stay in the copy, so none is ever removed from the database that serves.
        journal, output = told.record.folder / "try.jsonl", told.record.folder / "try.log"
        smoked = self._tried = trial(journal, output)
        journal.unlink(missing_ok=True)
        if smoked.failures:
            first = smoked.failures[0]
            raise DeployFailed(
                f"release {short(serving.name)} does not answer on {where}: {first.method} {first.path}:"
                f" {first.detail} (its log: {output})"
            )
        output.unlink(missing_ok=True)
        return f"release {short(serving.name)} answered its {len(serving.requests)} requests on it"

    def _window(self, serving: Artifact, broken: tuple[str, ...] | None = None) -> Window:
        """Return what asks while the data is exchanged; the paths that are `broken` by then need no answer."""
        return Window(serving.requests, self._answered(self.target.url, self.target.fleet.token()), broken)

    def _settle(self, window: Window, what: str) -> Seen:
        """Wait until the service answers after `what`; return what users saw of it."""
        for _ in attempts(self._recovery, every=0.1):
            if window.settled():
                return window.judged()
        raise DeployFailed(f"the service does not answer {self._recovery:.0f} s after the {what}")

    def _prove(self, told: Account, serving: Artifact, *written: Smoked) -> None:
        """Prove that the service answers, and remove what that wrote, and what was `written` before it."""
        proof = self._proof(told, self.kind)
        proof.known = True  # it is judged on errors: caches, or a new server's memory, are cold
        try:
            with self.stage(told, "prove") as stage, proof:
                proof.begin(serving, None, serving=False)
                stage.note = proof.prove()
        finally:
            proof.wait()
            told.facts["traffic"] = _traffic_of(proof, serving)
        proof.finish()
        self._remove_written(told, serving, *written, proof.result)

    def _prove_back(self, told: Account, serving: Artifact, first: Seen) -> None:
        """Prove that what served before answers again, as `first` seen."""
        with self.stage(told, "prove") as stage, self._proof(told, BACK) as proof:
            proof.before = first.before
            proof.begin(serving, None, serving=False)
            stage.note = proof.prove(rollback=True)
        proof.finish()
        self._remove_written(told, serving, proof.result)

    def _forget_writes(self, told: Account) -> None:
        """Forget what the proof wrote, where that is in the data alone that serves no longer."""
        (told.record.folder / WRITES.format(self.kind)).unlink(missing_ok=True)

    def _proof(self, told: Account, of: str) -> Proof:
        return self._begin_proof(self.env, self.target, self.progress, told.record.folder / WRITES.format(of))

    def _remove_written(self, told: Account, serving: Artifact, *written: Smoked | TrafficResult | None) -> None:
        """Remove what was `written` and no request can remove."""
        left = remove_rows(self.target.database, serving, written)
        if left:
            told.remarks.append(f"what the proof wrote is still there: {left}")


def _traffic_of(proof: Proof, serving: Artifact) -> Any:
    """Return what the proof measured, as `report.json` of a deploy has it."""
    measured = traffic_report(proof.result, serving.name)
    return asdict(measured) if measured else None


def turned_away(seen: Seen) -> str:
    """Return in words what users saw of a swap."""
    if not seen.refused:
        return f"none of {seen.sent} requests was turned away in the swap"
    return f"{seen.refused} of {seen.sent} requests were turned away, with Retry-After, for {seen.seconds:.1f} s"
