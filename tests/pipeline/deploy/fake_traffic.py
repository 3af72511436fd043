"""The traffic of a proof without a process: the fake target answers, counting and judging are real."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Self

from pipeline.config.requests import COMMAND, RequestSpec
from pipeline.proof.answers import RequestFailed
from pipeline.proof.exchange import HEALTH, Exchange
from pipeline.proof.results import BASELINE, BUILD, Phase, Snapshot, TrafficResult
from pipeline.proof.tally import Outcome, Tally
from pipeline.proof.traffic import GeneratorDied, Traffic, TrafficPlan
from pipeline.proof.verdict import BAKE, CONFIRM
from tests.pipeline.deploy.fake_target import FAST_MS, FakeTarget

__all__ = ["FakeTraffic"]

AT_ONCE = 2  # of each request, with each call: one for each of two replicas


class FakeTraffic(Traffic):
    """The traffic of a plan, without a process: each call sends a few requests, which `target` answers."""

    def __init__(self, target: FakeTarget, plan: TrafficPlan) -> None:
        # The parent's would open what a process needs; all of its methods are replaced here.
        self._target = target
        self._began = time.time()
        self._tally = Tally(self._began, plan.slow_ms)
        self._phases = [Phase(plan.phase, self._began)]
        self._specs: tuple[RequestSpec, ...] = plan.requests
        self._died_of: GeneratorDied | None = None
        self._ids: list[str] = []  # of the writes that a command removes

    def start(self) -> Self:
        """Send the first requests."""
        name = self._phases[-1].name
        self._target.do("watch" if name == BUILD else "traffic", name)
        self._send()
        return self

    def phase(self, name: str, requests: Sequence[RequestSpec] | None = None) -> None:
        """Begin another phase, and send its first requests."""
        if self._died_of:
            raise self._died_of
        if name == BASELINE:
            self._target.do("traffic", name)
        self._phases.append(Phase(name, time.time()))
        self._specs = self._specs if requests is None else tuple(requests)
        self._send()

    def snapshot(self) -> Snapshot:
        """Send some requests, and return the counts; a generator that died stays dead."""
        try:
            self._target.fail_if_told("snapshot")
        except GeneratorDied as died:
            self._died_of = died
            raise
        self._send()
        return self._snapshot_of()

    def hold(self) -> None:
        """Do nothing: it sends only when it is asked."""

    def settle(self) -> Snapshot:
        """Return the counts: there is nothing to wait for."""
        return self._snapshot_of()

    def stop(self, *, at_once: bool = False) -> TrafficResult:
        """Return the counts of everything."""
        if self._died_of:
            raise self._died_of
        if at_once:
            self._target.ending()
        now = time.time()
        return TrafficResult(
            **vars(self._snapshot_of()),
            started=self._began,
            by_release=self._tally.by_release(),
            latency=self._tally.latency(),
            bins=self._tally.bins(now),
            phases=tuple(self._phases),
            ids=tuple(self._ids),
            exposed=() if at_once else self._target.exposed,
        )

    def abort(self) -> None:
        """Do nothing: no process runs."""

    def _snapshot_of(self) -> Snapshot:
        return Snapshot(
            seconds=time.time() - self._began,
            phase=self._phases[-1].name,
            outstanding=0,
            shares=self._tally.shares(),
            failures=self._tally.examples(),
            series=self._tally.series(),
            settled=True,
        )

    def _send(self) -> None:
        bakes = self._phases[-1].name in (BAKE, CONFIRM)
        for spec in self._specs or (HEALTH,):
            for _ in range(self._target.answers_in_a_bake // 2 if bakes else AT_ONCE):
                exchange, answer, error, latency = Exchange.new(spec), None, None, FAST_MS
                try:
                    answer, latency = self._target.fleet.answer(exchange.call())
                    exchange.check(answer)
                except RequestFailed as failed:
                    error = failed
                if spec.remove == COMMAND and not error:
                    self._ids.append(exchange.identity(None))
                phase, at = self._phases[-1].name, time.time()
                self._tally.add(Outcome(exchange, phase, at, latency, answer, error))
