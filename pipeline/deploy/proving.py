"""The proof of one rollout: when the traffic starts, what it sends, and when it has seen enough."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.config.project import Environment
from pipeline.config.requests import RequestSpec, common, renamed
from pipeline.errors import DeployFailed, Inconclusive, SlipwayError
from pipeline.proof.baking import BakePlan
from pipeline.proof.cleaning import clean_up
from pipeline.proof.results import BASELINE, BUILD, Snapshot, TrafficResult
from pipeline.proof.traffic import Traffic, TrafficPlan
from pipeline.proof.verdict import BAKE, Judgement, Limits, judge, judge_early
from pipeline.releases.model import Artifact
from pipeline.system.progress import Progress
from pipeline.system.waiting import Deadline
from pipeline.targets import Target

__all__ = ["Proof"]

log = logging.getLogger(__name__)

BASELINE_SECONDS = 2.0
REFUSED = (
    "running replicas refuse the new SERVICE_TOKEN, so the proof writes nothing until they are gone: keep the old one"
    " as SERVICE_TOKEN_PREVIOUS (docs/4-runbook.md, New secrets)"
)
TICK_SECONDS = 0.1


@dataclass
class Proof:
    """Traffic around a rollout.

    As a context manager it ends traffic that is still running when something else has failed.

    `traffic` sends what a plan says; `baseline_seconds`: how long what serves is measured before anything is changed.
    """

    env: Environment
    target: Target
    progress: Progress
    journal: Path  # of the writes that have not been removed yet
    old_counts: bool = True  # see `Limits`
    known: bool = False  # see `Limits`
    before: tuple[int, int] = (0, 0)  # see `Limits`
    unwatched: str | None = None  # what the traffic of the rollout did not watch, in words
    result: TrafficResult | None = None
    refusal: Judgement | None = None  # what was last held against the release
    traffic: Callable[[TrafficPlan], Traffic] = Traffic
    baseline_seconds: float = BASELINE_SECONDS
    _traffic: Traffic | None = None
    _release: str = ""
    _old: str | None = None
    _requests: tuple[RequestSpec, ...] | None = None  # of the release to be proved
    _renamed: Sequence[tuple[str, str]] = ()
    _ending: threading.Thread | None = None

    def watch_build(self, old: Artifact) -> None:
        """Send what `old`, which serves, answers without writing, until `begin`: a build may starve it on one host."""
        self._start(BUILD, tuple(request for request in old.requests if not request.writes))

    def begin(self, new: Artifact, old: Artifact | None, *, serving: bool, baseline: bool = True) -> None:
        """Start the traffic and measure what serves now, unless there is no time for a `baseline`.

        If nothing is `serving`, the traffic starts only when `prove` is called.
        """
        self._release, self._old = new.name, old.name if old and old.name != new.name else None
        # Until the rollout is over either release may answer, so only requests that both know are sent.
        both = common(new.requests, old.requests) if old else new.requests
        if self.target.fleet.token_changes():
            both = tuple(request for request in both if not request.writes)
            if serving:
                log.warning(REFUSED)
        if serving and not both:
            self.unwatched = _unwatched(new, old)
            log.warning(self.unwatched)
        self._requests = new.requests
        self._renamed = renamed(new.requests, old.requests) if old else []
        if self._traffic and not serving:
            self._traffic.abort()
            self._traffic = None
        if serving:
            self._start(BASELINE if baseline else "rollback", both)
            if baseline:
                self._wait(self.baseline_seconds, "baseline")

    def hold(self) -> None:
        """Send nothing until the next phase: what is changed now may turn somebody away, and the deploy says so."""
        if self._traffic:
            self._traffic.hold()

    def phase(self, name: str) -> None:
        """Start the phase `name`: requests that fall due from now on are counted under it."""
        if self._traffic:
            self._traffic.phase(name)

    def watch(self, stage: str, line: str, *, early: bool = True) -> None:
        """Show where the traffic stands; with `early`, raise as soon as the verdict can only be bad."""
        try:
            snapshot = self._traffic.snapshot() if self._traffic else None
        except SlipwayError:
            if early:
                raise
            snapshot = None  # what goes on without it is judged, or refused, when it is over
        if not snapshot:
            self.progress.live(stage, line)
            return
        self.progress.live(stage, f"{line} · {_standing(snapshot)}")
        if early:
            self._must_hold(judge_early(snapshot, self._limits(), new=self._release))

    def prove(self, *, rollback: bool = False) -> str:
        """Bake, then judge, and return the summary for people.

        Raise `DeployFailed` with the reason where the release is not proved, `Inconclusive` where too little is known.
        """
        assert self._requests is not None
        traffic = self._start(BAKE, self._requests)
        self._bake(traffic, rollback=rollback)
        self.progress.live("prove", "reading back the writes")
        self.target.watch.dismiss()
        self.result = traffic.stop()
        verdict = self._judge(self.result, rollback=rollback)
        self._must_hold(verdict)
        if verdict.more:
            raise Inconclusive(verdict.more)
        return verdict.reason

    def _bake(self, traffic: Traffic, *, rollback: bool) -> None:
        """Wait until the new release has served alone for long enough to judge it, or for as long as that may take."""
        plan = BakePlan(self.env.rate, self.env.bake_seconds, self.env.bake_limit)
        phase, seconds, left, said = BAKE, plan.seconds, plan.limit, False
        while True:
            self._wait(seconds, "prove", early=not rollback)
            judgement = self._judge(traffic.settle(), rollback=rollback)
            left -= seconds  # not what the slowest answers take: nothing is sent meanwhile
            further = plan.further(judgement, phase, left)
            if further is None:
                return
            before, (phase, seconds) = phase, further
            if phase != before:
                log.info(f"{judgement.more}: measuring once more before judging")
            elif not said:
                log.info(f"{judgement.more}: the bake goes on")
                said = True
            traffic.phase(phase)

    def _start(self, phase: str, requests: tuple[RequestSpec, ...]) -> Traffic:
        """Send `requests` in a `phase` of their own, from now on."""
        if self._traffic:
            self._traffic.phase(phase, requests)
            return self._traffic
        plan = TrafficPlan(
            base=self.target.url,
            rate=self.env.rate,
            token=self.target.fleet.token(),
            requests=requests,
            journal=self.journal,
            slow_ms=self.env.max_latency_ms,
            phase=phase,
        )
        self._traffic = self.traffic(plan).start()
        return self._traffic

    def wait(self) -> None:
        """Wait until the traffic that `__exit__` stopped has ended."""
        if self._ending:
            self._ending.join()

    def finish(self) -> None:
        """Wait until the traffic has ended; remove the writes that a failed release kept."""
        self.wait()
        clean_up(self.journal, self.target.url, self.target.fleet.token())

    @property
    def began(self) -> bool:
        """Whether anything was sent."""
        return self._traffic is not None

    @property
    def remarks(self) -> list[str]:
        """What a reader of the verdict should know besides, one line each."""
        shown = self.result.shown if self.result and self.known else ()
        building = [share for share in (self.result.shares if self.result else ()) if share.phase == BUILD]
        failed = sum(share.sent - share.ok for share in building)
        of = f"{failed} of {sum(share.sent for share in building)} requests failed"
        return [
            *([f"{of} during the build, before anything of it was there"] if failed else []),
            *([self.unwatched] if self.unwatched else []),
            *(f"the request `{before}` has the name `{now}` now" for before, now in self._renamed),
            *(f"GET {route} shows people what the proof wrote, as before" for route in shown),
            *(self.result.unchecked if self.result else ()),
        ]

    @property
    def slow(self) -> bool:
        """Whether the release was refused for being slow."""
        return self.refusal is not None and self.refusal.slow

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._traffic is not None and self.result is None:
            # In a thread, beside the rollback: each second that the broken release serves counts.
            self._ending = threading.Thread(target=self._end, args=(self._traffic,))
            self._ending.start()

    def _end(self, traffic: Traffic) -> None:
        try:
            self.result = traffic.stop(at_once=True)
        except SlipwayError as died:
            log.warning(died.problems[0])
            traffic.abort()

    def _wait(self, seconds: float, stage: str, *, early: bool = False) -> None:
        deadline = Deadline(seconds)
        while (left := deadline.left()) > 0:
            self.watch(stage, f"{left:.0f} s left", early=early)
            time.sleep(min(left, TICK_SECONDS))

    def _must_hold(self, verdict: Judgement) -> None:
        """Raise `DeployFailed` with what the engine or the traffic has against the release, if either has anything.

        The engine may know, for example, that the release ended.
        """
        if not verdict.ok:
            self.refusal = verdict
        against = [self.target.watch.trouble(), None if verdict.ok else verdict.reason]
        if any(against):
            raise DeployFailed("; ".join(reason for reason in against if reason))

    def _judge(self, result: Snapshot, *, rollback: bool) -> Judgement:
        return judge(result, self._limits(), new=self._release, old=self._old, rollback=rollback)

    def _limits(self) -> Limits:
        env = self.env
        return Limits(env.max_failures, env.max_slowdown, env.max_latency_ms, self.old_counts, self.known, self.before)


def _unwatched(new: Artifact, old: Artifact | None) -> str:
    """Return what nobody watched while replicas of `old` were exchanged for `new`."""
    names = ", ".join(f"`{spec.name}`" for spec in (old or new).requests)
    why = (
        "the two releases share no other request"
        if old and not common(new.requests, old.requests)
        else ("the token changes, and all other requests write")
    )
    return f"the rollout was watched by /health alone, not by {names}: {why}"


def _standing(snapshot: Snapshot) -> str:
    return f"{snapshot.sent} requests, {snapshot.failed} failed"
