"""A deploy is one story with the same stages on every target.

plan → build → check → migrate → roll out → prove → record; where a stage fails: roll back → prove → record.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipeline.config.project import Environment, Project
from pipeline.config.settings import needed_secrets
from pipeline.data.metrics import leave_metrics
from pipeline.data.records import DataRecords
from pipeline.deploy import board, github
from pipeline.deploy.ages import NOTED, ages_of
from pipeline.deploy.chapter import Chapter, source_of
from pipeline.deploy.evidence import write_evidence
from pipeline.deploy.healing import JOURNAL, clean_up_writes, heal
from pipeline.deploy.proving import Proof
from pipeline.deploy.readiness import degraded_checks
from pipeline.deploy.removal import remove_written
from pipeline.deploy.schema_check import SchemaCheck
from pipeline.deploy.trial import try_unrouted
from pipeline.deploy.verification import unverified
from pipeline.deploy.working_tree import refuse_backwards, tree_problems
from pipeline.errors import DeployFailed, Inconclusive, Interrupted, SlipwayError, UsageError
from pipeline.proof.report import Report
from pipeline.proof.verdict import baseline_failures
from pipeline.releases.migrations import RetainedRelease
from pipeline.releases.model import Artifact, Running, short
from pipeline.system.git import read_source
from pipeline.system.progress import Progress
from pipeline.system.protection import best_effort, deaf, problems_of
from pipeline.system.text import now
from pipeline.targets import Target, open_target

__all__ = ["Story"]

log = logging.getLogger(__name__)

LOG = "deploy.log"


class Story:
    """One deploy or rollback of an environment."""

    def __init__(
        self,
        project: Project,
        env: Environment,
        progress: Progress,
        *,
        empty_database: bool = False,
        forgotten: str | None = None,
        cancel_backup: bool = False,
        target: Target | None = None,
        proof: Callable[[Environment, Target, Progress, Path, bool], Proof] = Proof,
        degraded: Callable[[str], list[str]] = degraded_checks,
    ) -> None:
        """Open the environment. `empty_database`: it may start over with none; `forgotten`: an applied migration.

        `cancel_backup`: migrations end a backup that runs; `target`: the environment's own by default; `proof`: what
        watches a rollout, and judges it; `degraded`: what lists the degraded checks of the service at a URL.
        """
        self.project, self.env, self.progress = project, env, progress
        self.target: Target = target or open_target(project, env, progress)
        self.releases, self.fleet, self.watch = self.target.releases, self.target.fleet, self.target.watch
        self._begin_proof, self._degraded = proof, degraded
        self.records = self.target.records()
        self._empty_database = empty_database
        self.schema = SchemaCheck(self.target, forgotten=forgotten, cancel_backup=cancel_backup)
        self.schema.told = lambda line: progress.live("check", line)
        self._recorded = False  # whether a release in the records was asked for

    def tell(self, *, reference: str | None, dry_run: bool, forward: bool = False) -> tuple[int, Report]:
        """Ship the working tree or the release that `reference` names; return the exit code and the report.

        With `forward`, refuse where what is serving was deployed from a newer commit than the working tree's.
        """
        adopted = self.releases.adopt(reference)
        kept = self.records.find(reference) if reference and not adopted else None
        wanted = adopted or (kept.release if kept else None)
        self._recorded = kept is not None
        with ExitStack() as stack:
            with self.progress.stage("plan"):
                problems = self.target.problems() + ([] if wanted else tree_problems(self.project))
                if problems:
                    raise UsageError(*problems)
                for line in self.target.database.places():
                    log.info(line)
                self._refuse_undelivered(wanted)
                stack.enter_context(self.target.lock())
                self.records.refresh()  # another deploy may have held the lock until now
                self._refuse_lost_data(wanted)
                self.schema.dry_run = dry_run
                if forward:
                    refuse_backwards(self.project.root, self.env.name, self.records.serving())
                data = DataRecords.of(self.project, self.env.name)
                unfinished = bool(self.records.killed()) if dry_run else heal(self.target, self.records, data)
            source = source_of(kept) if kept else read_source(self.project.root)
            facts = {"started": now(), "release": wanted, "stage": "plan", "dry_run": dry_run, **asdict(source)}
            facts[NOTED] = ages_of(self.records, self.target.secrets.read(), now())
            chapter = Chapter(self.records.begin(facts), source)
            self.progress.transcript.keep(chapter.record.folder / LOG)
            leave_metrics(self.project, self.env)
            try:
                self._ship(chapter, wanted, dry_run=dry_run, unfinished=unfinished)
            except (Exception, Interrupted) as error:  # noqa: BLE001 - a fault of our own is undone like any other
                self._undo(chapter, error)
            return chapter.code, self._record(chapter, dry_run=dry_run)

    # --- the stages ---

    def _refuse_lost_data(self, wanted: str | None) -> None:
        """Refuse data that the proved releases did not use or that the new engine cannot read.

        Raise `UsageError` where there is such data; nothing has been touched by then.
        """
        proved = any(record.verdict == "proved" for record in self.records.all())
        self.schema.expected = proved and not self._empty_database
        problems = self.target.database.problems(expected=self.schema.expected, release=wanted)
        if problems:
            raise UsageError(*problems)

    def _refuse_undelivered(self, wanted: str | None) -> None:
        """Raise `UsageError` where the release needs a secret that its replicas would not get.

        Raise it, too, where the release `wanted` or what was built for it is not kept.
        """
        needs = self.releases.recorded(wanted).needs if wanted else needed_secrets()
        problems = self.fleet.undelivered(needs, wanted)
        if problems:
            raise UsageError(*problems)

    def _ship(self, chapter: Chapter, wanted: str | None, *, dry_run: bool, unfinished: bool) -> None:
        serving = self.records.serving()
        chapter.old = self._artifact(serving.release) if serving else None
        with self._proof(chapter, "rollout", old_counts=not unfinished) as proof:
            with self._stage(chapter, "build") as stage:
                if chapter.old and not (wanted or dry_run):
                    running = self.fleet.running()
                    if running.releases and not running.problems:  # else the edge may be elsewhere by now, or away
                        proof.watch_build(chapter.old)
                chapter.new = self.releases.recorded(wanted) if wanted else self.releases.build()
                stage.note = f"release {short(chapter.new.name)}"
                self.records.note(chapter.record, release=chapter.new.name)
            with self._stage(chapter, "check") as stage:
                nothing_to_do, running = self._check(chapter, unfinished=unfinished)
                stage.note = "nothing to do" if nothing_to_do else ""
                early = self.schema.nothing_to_do and not (nothing_to_do or dry_run)
                if early and self.fleet.settled(chapter.new, running):
                    stage.note = self._try(chapter, running, lambda line: self.progress.live("check", line))
            if nothing_to_do or dry_run:
                chapter.verdict, chapter.code = "unchanged", 0
                chapter.reason = None if nothing_to_do else f"this was a dry run of release {short(chapter.new.name)}"
                return
            chapter.proof = proof
            proof.known = self._proved_before(chapter.new)
            with self._stage(chapter, "migrate") as stage:
                stage.note = self._migrate(chapter, proof)
            with self._stage(chapter, "roll out"):
                self.fleet.roll_out(chapter.new, lambda line: proof.watch("roll out", line))
            with self._stage(chapter, "prove") as stage:
                stage.note = proof.prove()
        chapter.verdict, chapter.code = "proved", 0

    def _migrate(self, chapter: Chapter, proof: Proof) -> str:
        """Bring up what the new release needs, and the schema; return how its trial went, for the stage."""
        new = chapter.new
        assert new is not None
        chapter.touched = True
        proof.hold()
        self.fleet.prepare(new)
        running = self.fleet.running()
        retained = self._retained(new, running)
        if self.schema.schema is None or self._empty_database:  # it may not be the one that `check` asked
            chapter.touched = bool(running.releases)  # a refusal needs no undoing where nothing serves
            self.schema.check(new, chapter.old if running.replicas else None, retained, started=True)
            chapter.touched = True
        if self.schema.is_new:  # nobody can be served from it yet, so there is no baseline to have
            self.schema.upgrade(new, retained)
        proof.begin(new, chapter.old, serving=bool(running.releases))
        if not self.schema.is_new:
            self.schema.upgrade(new, retained)
        proof.phase("rollout")  # what fails from here on was changed by this deploy
        return "" if chapter.tried else self._try(chapter, running, lambda line: proof.watch("migrate", line))

    def _check(self, chapter: Chapter, *, unfinished: bool) -> tuple[bool, Running]:
        """Refuse what must not ship; return whether there is nothing to ship at all, and what runs.

        Raise `DeployFailed` where the release is refused.
        """
        new, serving = chapter.new, self.records.serving()
        assert new is not None
        if not new.requests:
            raise DeployFailed("nothing to prove the release with: declare [[tool.slipway.requests]] in pyproject.toml")
        unsigned = [] if self._trusted(new) else unverified(self.env, self.releases, new)
        objections = unsigned or self.releases.objections(new) or self.fleet.objections(new)
        if objections:
            raise DeployFailed(*objections)
        running = self.fleet.running()
        if serving and running.replicas and not chapter.old:
            raise DeployFailed(
                f"release {serving.release} is serving and could not be brought back if the new one failed (see above):"
                " run `nox -s down`, then deploy; the data is kept"
            )
        if chapter.old:
            for line in self.releases.difference(new, chapter.old):
                log.info(f"changes {line}")
            dropped = [name for name in chapter.old.needs if name not in new.needs]
            for line in self.fleet.undelivered(dropped, chapter.old.name) if dropped else ():
                log.warning(f"the release that serves could not be brought back: {line}")
        self.schema.check(new, chapter.old if running.replicas else None, self._retained(new, running))
        proved = serving is not None and (serving.release, serving.verdict) == (new.name, "proved")
        nothing_to_do = proved and not unfinished and self.schema.nothing_to_do and running.complete(new.name)
        return nothing_to_do, running

    def _try(self, chapter: Chapter, running: Running, watch: Callable[[str], None]) -> str:
        """Try the new release before anybody is sent to it; return how that went, for the stage."""
        new = chapter.new
        assert new is not None
        if self._trusted(new) or not running.releases:  # a first release has nobody to be kept from
            return ""
        journal = chapter.record.folder / JOURNAL.format("trial")
        migrated = not self.schema.nothing_to_do
        return try_unrouted(chapter, self.target, watch, journal, migrated=migrated)

    def _trusted(self, new: Artifact) -> bool:
        """Return whether `new` was asked for by its record, and proved here before; refused ones have records, too."""
        # Going back at night must not wait for a registry or for Sigstore, nor hang on what fails for each release.
        return self._recorded and self._proved_before(new)

    def _proved_before(self, new: Artifact) -> bool:
        return any(record.verdict == "proved" for record in self.records.all() if record.release == new.name)

    def _retained(self, new: Artifact, running: Running) -> list[RetainedRelease]:
        """Return the releases that a contracting migration must not break: what runs and what can be rolled back to."""
        names = dict.fromkeys([*running.releases, *self.records.retained(self.project.retain)])
        kept = [self._artifact(name) for name in names if name != new.name]
        return [
            RetainedRelease(artifact.name, artifact.revision) for artifact in kept if artifact and artifact.revision
        ]

    def _artifact(self, name: str | None) -> Artifact | None:
        try:
            return self.releases.recorded(name or "")
        except SlipwayError as error:
            log.warning(error.problems[0])
            return None

    # --- undoing and recording ---

    def _undo(self, chapter: Chapter, error: Exception | Interrupted) -> None:
        """Report why the deploy failed; if anything running was touched, bring back and prove what served before."""
        problems = problems_of(error)
        undone = "interrupted" if isinstance(error, Interrupted) else "rolled_back"
        chapter.reason = problems[0]
        chapter.verdict = "interrupted" if isinstance(error, Interrupted) else "failed"
        chapter.code = error.exit_code if isinstance(error, Inconclusive | Interrupted) else 1
        for problem in problems:
            log.error(problem)
        if not chapter.touched:
            chapter.code = error.exit_code if isinstance(error, SlipwayError | Interrupted) else 1
            return
        if isinstance(error, Inconclusive):
            chapter.verdict = undone = "inconclusive"
            if chapter.old is None or self.env.inconclusive == "keep":
                return
        with deaf():
            before = len(self.progress.stages)
            chapter.keep_log(self.fleet)
            chapter.back = self._proof(chapter, "rollback")
            verdict, reason, whole = "proved", None, True
            try:
                if chapter.old is None:
                    verdict, reason = "failed", self._withdraw(chapter)
                else:
                    self._roll_back(chapter, chapter.old, chapter.back)
                    chapter.verdict = undone
            except Exception as second:  # noqa: BLE001 - the record is written whatever it is
                verdict, reason, whole = "failed", problems_of(second)[0], False
                chapter.verdict, chapter.code = "failed", 1  # whatever caused the rollback: nothing was undone
                log.error(f"the rollback failed, too: {reason}")
            chapter.undone(verdict, reason, self.progress.stages[before:], whole=whole)

    def _proof(self, chapter: Chapter, of: str, *, old_counts: bool = True) -> Proof:
        journal = chapter.record.folder / JOURNAL.format(of)
        return self._begin_proof(self.env, self.target, self.progress, journal, old_counts)

    def _withdraw(self, chapter: Chapter) -> str:
        """Stop what was shipped where there was nothing before; return the outcome in words."""
        with self._stage(chapter, "roll back") as stage:
            self.fleet.withdraw()
            left = ", ".join(map(short, self.fleet.running().releases))  # not started by any deploy
            stage.note = f"there is no earlier release: {f'{left} is still serving' if left else 'nothing is serving'}"
        return str(stage.note)

    def _roll_back(self, chapter: Chapter, old: Artifact, proof: Proof) -> None:
        """Bring `old` back, though nobody can watch it, and prove that it serves."""
        with proof:
            with self._stage(chapter, "roll back") as stage:
                stage.note = f"to release {short(old.name)}"
                self.fleet.put_back(old)
                watched = self._watch_rollback(old, proof)
                self.fleet.roll_out(old, lambda line: proof.watch("roll back", line, early=False), back=True)
            with self._stage(chapter, "prove") as stage:
                if not watched:
                    proof.begin(old, None, serving=False)
                if chapter.proof:
                    chapter.proof.wait()
                    proof.before = baseline_failures(chapter.proof.result)
                stage.note = proof.prove(rollback=True)

    def _watch_rollback(self, old: Artifact, proof: Proof) -> bool:
        """Start the traffic of a rollback to `old`; return whether it could be."""
        try:
            proof.begin(old, None, serving=bool(self.fleet.running().releases), baseline=False)
        except (SlipwayError, OSError) as error:
            log.warning(f"the rollback goes unwatched: {error}")
            return False
        return True

    def _record(self, chapter: Chapter, *, dry_run: bool) -> Report:
        """Write the evidence, whatever happened, and return the report; this never fails a deploy."""
        with deaf(), self.progress.stage("record") as stage:
            with best_effort():
                if chapter.proof:
                    chapter.proof.finish()
                if chapter.proof or chapter.tried:
                    for record in self.records.all():  # writes that a broken release failed to remove
                        clean_up_writes(self.target, record.folder)
            with best_effort():
                if chapter.stays:
                    self.fleet.keep()
            with best_effort():
                if not dry_run:
                    chapter.unremoved = remove_written(self.target.database, chapter, self.records)
            report = self._report(chapter)
            place = os.path.relpath(chapter.record.folder, self.project.root)
            with best_effort():
                github.publish(report, "" if dry_run else f"{place}/report.json")
            with best_effort():
                if dry_run:
                    shutil.rmtree(chapter.record.folder)  # nothing was shipped, so there is no release to record
                    return report
                self._keep(chapter, report)
            with best_effort():
                board.tell(self.project.name, report)
            stage.note = f"{place}/report.md"
        return report

    def _report(self, chapter: Chapter) -> Report:
        """Return the report of the deploy, which ends now, with what others saw meanwhile; that is logged, too."""
        report, inside, remarks = chapter.report(self.target), None, list[str]()
        if report.traffic:
            with best_effort():
                inside = self.watch.second_view(report.traffic.failed, report.traffic.sent)
            with best_effort():
                remarks = self.watch.remarks()
        with best_effort():
            remarks += self._degraded(report.url) if report.verdict != "failed" else []
        if inside:
            log.info(f"from inside: {inside[0]}")
        for line in remarks:
            log.info(f"meanwhile {line}")
        undoing = report.rollback.stages if report.rollback else ()
        stages = tuple(self.progress.stages[: -1 - len(undoing)])  # the last one, `record`, is not over
        before = self.records.before(report.release) if chapter.stays else None
        back = before.release if before else None
        remarks = [*report.remarks, *remarks]
        return replace(report, finished=now(), stages=stages, inside=inside, remarks=tuple(remarks), back=back)

    def _keep(self, chapter: Chapter, report: Report) -> None:
        """Write `report` where this environment and others look for it; remove what nobody needs any more."""
        write_evidence(chapter.record.folder, report)
        leave_metrics(self.project, self.env)
        self.records.publish(chapter.record)
        with ThreadPoolExecutor(1) as beside:  # a registry may have to be read again after a second
            attested = beside.submit(self.releases.attest, report) if chapter.proof else None
            self.releases.prune(self.records.retained(self.project.retain))
            self.records.prune()
        if attested:
            attested.result()

    @contextmanager
    def _stage(self, chapter: Chapter, name: str) -> Iterator[Any]:
        """Note where a deploy stands, in case it is killed; what is on its way back goes on without the note."""
        with self.progress.stage(name) as stage:
            with best_effort() if chapter.reason else nullcontext():
                self.records.note(chapter.record, stage=name)
            yield stage
