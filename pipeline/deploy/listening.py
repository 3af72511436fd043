"""A deploy that listens: its traffic goes on, thinner, and an alert on its release brings the one before back.

The environment's lock is free meanwhile. It is taken to go back, and then only if the release still serves.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

from pipeline.config.project import Environment, KubernetesEnvironment, Project
from pipeline.data.metrics import leave_metrics
from pipeline.deploy import board, github
from pipeline.deploy.chapter import keep_log
from pipeline.deploy.evidence import write_evidence
from pipeline.deploy.healing import JOURNAL, WATCH
from pipeline.deploy.instead import Instead, Superseded, superseded
from pipeline.deploy.removal import remove_known
from pipeline.deploy.story import Story
from pipeline.errors import Interrupted, LockHeld, SlipwayError
from pipeline.metrics.prometheus import WINDOW_SECONDS, Alert, Prometheus, PrometheusError, questions, reachable
from pipeline.proof.cleaning import clean_up
from pipeline.proof.report import WATCHING, Report, Rollback, Watched
from pipeline.proof.results import TrafficResult
from pipeline.proof.traffic import GeneratorDied, Traffic, TrafficPlan
from pipeline.releases.lock import hold_lock
from pipeline.releases.model import Artifact
from pipeline.releases.records import Record
from pipeline.system.progress import Progress
from pipeline.system.protection import best_effort, deaf, problems_of
from pipeline.system.text import duration
from pipeline.targets import Target

__all__ = ["LEAST_REQUESTS", "Listener", "prometheus_of"]

log = logging.getLogger(__name__)

THINNER = 10  # times: of the rate of the proof
LOOK_SECONDS = 5.0
LEAST_REQUESTS = 200  # in the window of ReleaseFailing, which is silent below that
UNHEARD = ("superseded", "left")  # outcomes of a watch that did not come to its end: nobody may promote by it


def prometheus_of(env: Environment) -> Prometheus | None:
    """Return the Prometheus of `env`, if this machine can ask it."""
    return reachable(env.prometheus, _namespace(env))


def _namespace(env: Environment) -> str | None:
    return env.namespace if isinstance(env, KubernetesEnvironment) else None


@dataclass(frozen=True)
class Heard:
    """What was heard, see `Watched`."""

    outcome: str
    said: str
    alert: Alert | None = None


@dataclass
class Listener:
    """Listens for `watch_minutes` to what is said of the release that the deploy of `report` has proved.

    `begin` creates the story of a rollback, `ask` opens a Prometheus, `traffic` sends what a plan says, `clock` is in
    seconds.
    """

    project: Project
    env: Environment
    target: Target
    progress: Progress
    record: Record
    report: Report
    begin: Callable[..., Story] = Story
    ask: Callable[[Environment], Prometheus | None] = prometheus_of
    traffic: Callable[[TrafficPlan], Traffic] = Traffic
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _began: float = 0.0
    _until: str | None = None
    _most: float | None = None  # requests that Prometheus counted in a window without the proof
    _unasked: str = ""  # why it did not answer, the last time that it did not
    _answered: float = 0.0  # when it did, the last time
    _unheard: float = 0.0  # seconds: the longest time in which it did not
    _warned: set[str] = field(default_factory=set)
    _sending: Traffic | None = None
    _result: TrafficResult | None = None

    def listen(self) -> tuple[int, Report]:
        """Listen until it is known what becomes of the release; return the exit code and the report.

        Raise `LockHeld` where somebody listens to this deploy already.
        """
        self._began = self._answered = self.clock()
        before = self.target.records().replaced(self.record)
        if before is None:
            self._conclude(Heard("nothing", "not watched: there is no release before it to go back to"))
            return 0, self.report
        self._until = (datetime.now(UTC) + timedelta(minutes=self.env.watch_minutes)).isoformat(timespec="seconds")
        with self._alone():
            self._keep(Heard(WATCHING, "it is watched, or that was killed"))
            try:
                heard = self._watch(before)
            except Interrupted:
                heard = Heard("left", f"the watch was ended after {self._age()}, and the release stays")
            except Exception as error:  # noqa: BLE001 - what it sends is ended all the same
                heard = Heard("nothing", f"nothing was watched: {problems_of(error)[0]}")
            with deaf():
                self._settle()
                self._conclude(heard)
        return (1 if heard.outcome == "fired" else 0), self.report

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(hold_lock(self.record.folder / WATCH))
            except LockHeld:
                what = f"deploy {self.record.number} is watched already"
                raise LockHeld(f"{what}: wait until that is over, or end it there with Ctrl-C") from None
            yield

    # --- what is heard ---

    def _watch(self, before: Record) -> Heard:
        until = self._began + 60 * self.env.watch_minutes
        self._send()
        with ExitStack() as asking:
            return self._judged(before, self.ask(self.env) or self._from_inside(asking), until)

    def _from_inside(self, asking: ExitStack) -> Prometheus | None:
        """Return a Prometheus that the target asks until `asking` ends; None where it does not."""
        address, namespace = self.env.prometheus or "", _namespace(self.env)
        inside = self.target.fleet.asking(address, questions(self._release, namespace), self._release)
        if inside is None:
            return None
        return Prometheus(address, namespace=namespace, fetch=asking.enter_context(inside))

    def _judged(self, before: Record, prometheus: Prometheus | None, until: float) -> Heard:
        """Look on until it is known what becomes of the release, and go back if there is a reason to."""
        while True:
            with self.progress.stage(WATCH) as stage:
                heard = self._look_on(prometheus, until)
                stage.note, stage.outcome = heard.said, "failed" if heard.alert else "ok"
            if not heard.alert:
                return heard
            try:
                self._go_back(before, heard)
            except Superseded as late:
                return Heard("superseded", f"{late}: the watch ends")
            except LockHeld as held:  # in the moment between
                self._warn(held.problems[0])
                self._resume()
                continue
            return heard

    def _look_on(self, prometheus: Prometheus | None, until: float) -> Heard:
        """Look again and again, until the time is over, another release serves, or there is a reason to go back."""
        while True:
            serving = self._serving()
            if serving != self.record.number:
                return Heard("superseded", f"{superseded(serving)}: the watch ends")
            alert = self._alert(prometheus)
            if alert and not self._locked():
                after = f"{alert.name} fired {self._age()} after the release was proved"
                return Heard("fired", f"{after}: {alert.summary}".rstrip(": "), alert)
            if alert:
                self._warn(f"{alert.name} fires, and another deploy holds the lock: waiting for it")
            elif self.clock() >= until:
                return self._quiet()
            self.progress.live(WATCH, self._standing(until))
            self.sleep(LOOK_SECONDS)

    def _locked(self) -> bool:
        """Return whether somebody holds the lock, or nobody can say."""
        try:
            return self.target.holder() is not None
        except (SlipwayError, OSError) as error:
            self._warn(problems_of(error)[0])
            return True

    def _serving(self) -> int | None:
        """Return the number of the deploy that serves; this one's where nobody can say."""
        try:
            serving = self.target.records().serving()
        except (SlipwayError, OSError) as error:
            self._warn(problems_of(error)[0])
            return self.record.number
        return serving.number if serving else None

    def _alert(self, prometheus: Prometheus | None) -> Alert | None:
        """Return an alert that is a reason to go back, if one fires; note how many requests were counted."""
        try:
            if prometheus is None:
                raise PrometheusError(f"prometheus: {self.env.prometheus} cannot be asked from here")
            counted, alerts = prometheus.watched(self._release), prometheus.alerts()
        except PrometheusError as error:
            self._unasked = error.problems[0]
            self._warn(self._unasked)
            self._unheard = max(self._unheard, self.clock() - self._answered)
            return None
        self._answered = self.clock()
        if self._answered - self._began >= self._window:  # before, the requests of the proof are among them
            self._most = max(self._most or 0.0, counted)
        return next((one for one in alerts if self._is_reason(one)), None)

    def _is_reason(self, alert: Alert) -> bool:
        """Return whether the release may be why `alert` fires: what is older has another cause.

        One that names the release may have begun in its rollout: people use what the proof does not ask for.
        """
        if not alert.rollback or alert.state != "firing" or alert.release not in (None, self._release):
            return False
        since = self.report.started if alert.release else self.report.finished
        try:
            began, served = (datetime.fromisoformat(at or "") for at in (alert.since, since))
        except ValueError:
            return False
        return began >= served

    def _quiet(self) -> Heard:
        if self._most is None or self._unheard > self._window:
            silent = f" (for {duration(self._unheard)})" if self._most is not None else ""
            return Heard("nothing", f"nothing was watched: {self._unasked}{silent}")
        counted = f"at most {self._most:.0f} requests in 2 min"
        if self._most < LEAST_REQUESTS:
            return Heard("nothing", f"nothing was watched: {counted}, and a verdict needs {LEAST_REQUESTS}")
        return Heard("quiet", f"watched for {self._age()}: no alert, {counted}")

    # --- what is done ---

    def _send(self) -> None:
        journal = self.record.folder / JOURNAL.format(WATCH)
        plan = TrafficPlan(
            base=self.target.url,
            rate=self.env.rate / THINNER,
            token=self.target.fleet.token(),
            requests=self._artifact.requests,
            journal=journal,
            phase=WATCH,
        )
        self._sending = self.traffic(plan)
        try:
            self._sending.start()
        except GeneratorDied as died:  # users' requests are counted, too
            self._warn(died.problems[0])

    def _resume(self) -> None:
        with best_effort():
            if self._sending:
                self._sending.phase(WATCH)

    def _go_back(self, before: Record, heard: Heard) -> None:
        """Bring the release of `before` back by the story of a rollback, whatever becomes of that."""
        log.error(heard.said)
        self.progress.stages.clear()  # those of the deploy are in its report
        with best_effort():
            if self._sending:
                self._sending.hold()  # the rollback's proof sends its own
        keeping = keep_log(self.target.fleet, self._release, self.record.folder)
        rollback = Rollback(release=before.release, verdict="failed", reason=None)
        try:
            story = self.begin(self.project, self.env, self.progress)
            instead = Instead(self.record.number, f"back from deploy {self.record.number}, as {heard.said}")
            code, back = story.tell(reference=str(before.number), dry_run=False, instead=instead)
            verdict, reason = ("failed", back.reason) if code else ("proved", None)
            rollback = replace(rollback, verdict=verdict, reason=reason, stages=back.stages, traffic=back.traffic)
        except (LockHeld, Superseded):
            raise
        except Exception as error:  # noqa: BLE001 - it was refused, or could not begin: an alert fires all the same
            rollback = replace(rollback, reason=problems_of(error)[0])
            log.error(f"the rollback failed: {rollback.reason}")
        finally:
            keeping.join()
        undone = "rolled_back" if rollback.verdict == "proved" else "failed"
        self.report = replace(self.report, verdict=undone, reason=heard.said, rollback=rollback, back=None)

    def _settle(self) -> None:
        """End the traffic, and remove what it wrote; what cannot be removed is left to the next deploy."""
        if not self._sending:
            return
        journal, release = self.record.folder / JOURNAL.format(WATCH), self._artifact
        with best_effort():
            try:
                self._result = self._sending.stop(at_once=True)
            except GeneratorDied as died:
                log.warning(died.problems[0])
                self._sending.abort()
            clean_up(journal, self.target.url, self.target.fleet.token())
        with best_effort():
            left = remove_known(self.target.database, release, self._result)
            self.report = replace(self.report, unremoved=left or self.report.unremoved)

    def _conclude(self, heard: Heard) -> None:
        """Write down what came of it, and tell those who wait for it."""
        self._keep(heard)
        with best_effort():
            if heard.outcome not in UNHEARD:
                self.target.releases.attest(self.report)
        with best_effort():
            if heard.outcome == "fired":
                board.retell(self.project.name, self.report)
        with best_effort():
            place = os.path.relpath(self.record.folder, self.project.root)
            github.publish(self.report, f"{place}/report.json")

    def _keep(self, heard: Heard) -> None:
        result = self._result
        watch = Watched(
            minutes=self.env.watch_minutes,
            outcome=heard.outcome,
            said=heard.said,
            seconds=round(self.clock() - self._began, 1),
            requests=None if self._most is None else round(self._most),
            alert=heard.alert.name if heard.alert else None,
            sent=result.sent if result else 0,
            failed=result.failed if result else 0,
            until=self._until,
        )
        self.report = replace(self.report, watch=watch)
        with best_effort():
            records = self.target.records()  # before: a cluster's are copied here, and this one is older there
            write_evidence(self.record.folder, self.report)
            records.publish(self.record)
        leave_metrics(self.project, self.env)

    # --- what is said ---

    @property
    def _release(self) -> str:
        return self.report.release or ""

    @cached_property
    def _artifact(self) -> Artifact:
        return self.target.releases.recorded(self._release)

    @property
    def _window(self) -> float:
        """The seconds over which Prometheus counts, or as many of them as a short watch has."""
        return min(WINDOW_SECONDS, 60 * self.env.watch_minutes)

    def _age(self) -> str:
        return duration(self.clock() - self._began)

    def _standing(self, until: float) -> str:
        parts = [f"{duration(max(0.0, until - self.clock()))} left"]
        parts += [] if self._most is None else [f"{self._most:.0f} requests in 2 min"]
        try:
            snapshot = self._sending.snapshot() if self._sending else None
        except GeneratorDied as died:
            self._warn(died.problems[0])
            snapshot = None
        return " · ".join([*parts, *([f"{snapshot.sent} sent, {snapshot.failed} failed"] if snapshot else [])])

    def _warn(self, line: str) -> None:
        """Say `line`, once."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning(line)
