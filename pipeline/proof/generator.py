"""The open model: a request is due every 1/rate seconds, whatever became of the ones before it.

Nothing that the service does can delay the sending of a request: each request has its own task and, if no idle one is
left, its own connection. So a request is sent late only because this process did not get to run, and that time is not
the service's; nor is the time that the event loop stood still while an answer was waiting to be read. Latency is
measured from when a request was due to its whole answer, without the stalls in between (`StallClock`); the result says
how long those were. A stalled generator makes fewer claims, never better ones: requests that fell due in a stall are
sent after it, unless they are older than a second; those are counted as skipped.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pipeline.config.requests import RequestSpec
from pipeline.proof.answers import Answer, NoAnswer, RequestFailed
from pipeline.proof.client import Client
from pipeline.proof.exchange import Exchange
from pipeline.proof.hiding import look
from pipeline.proof.mix import Mix, Turn
from pipeline.proof.plan import ABANDON_SECONDS, SETTLE_SECONDS, TrafficPlan
from pipeline.proof.results import QUIET, Phase, Snapshot, TrafficResult
from pipeline.proof.tally import Outcome, Tally
from pipeline.proof.writes import Ledger

__all__ = ["Generator", "StallClock"]

T = TypeVar("T")

SKIP_AFTER_SECONDS = 1.0
HELD_SECONDS = 0.01


class StallClock:
    """A measure of how long the event loop could not run: a tick every 10 ms that comes late shows it."""

    TICK, TOLERANCE = 0.010, 0.005  # seconds; less than the tolerance is the timer's imprecision and counts as latency

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._total = loop, 0.0
        self._due = loop.time()
        self._tick()

    def stalled(self, now: float) -> float:
        """Return the seconds stalled from the start to `now`, including a stall that has not ended yet."""
        return self._total + max(0.0, now - self._due - self.TOLERANCE)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` for `seconds` in which this process could run, and return its result.

        After that time, cancel it and raise `TimeoutError`.
        """
        # asyncio.timeout would cancel, after a stall, what was answered during the stall.
        started = self._loop.time()
        before = self.stalled(started)
        task = self._loop.create_task(work)
        try:
            while not task.done():
                now = self._loop.time()
                left = seconds - (now - started) + (self.stalled(now) - before)
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait({task}, timeout=left)
            return task.result()
        finally:
            task.cancel()

    def stop(self) -> None:
        """Stop ticking."""
        self._handle.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._total = self.stalled(now)
        self._due = now + self.TICK
        self._handle = self._loop.call_at(self._due, self._tick)


class Generator:
    """The sender of a plan's requests until it is told to stop. Create it inside a running event loop."""

    def __init__(self, plan: TrafficPlan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._clock = StallClock(self._loop)
        self._client = Client(plan.base, plan.token)
        self._ledger = Ledger(plan.journal)
        self._requests = plan.requests
        self._mix = Mix(plan.requests)
        self._started, self._epoch = self._loop.time(), time.time()
        self._tally = Tally(self._epoch, plan.slow_ms)
        self._phases = [Phase(plan.phase, self._epoch)]
        self._stopping, self._at_once, self._ended = False, False, self._started
        self._held = False
        self._outstanding: set[asyncio.Task[None]] = set()
        self._cut, self._skipped, self._lag = 0, 0, 0.0
        self._exposed: tuple[str, ...] = ()
        self._unchecked: tuple[str, ...] = ()

    def phase(self, name: str, requests: Sequence[RequestSpec] | None = None) -> None:
        """Start the phase `name`, or go on with it, for what falls due from now on.

        Where `requests` are given, send these.
        """
        if name != self._phases[-1].name:
            self._phases.append(Phase(name, self._wall(self._loop.time())))
        self._held = False
        if requests is not None:
            self._requests = tuple(requests)
            self._mix = Mix(self._requests, self._mix)

    def hold(self) -> None:
        """Let nothing more fall due until the next phase."""
        self._held = True

    @property
    def held(self) -> bool:
        """Whether nothing falls due."""
        return self._held

    def stop(self, *, at_once: bool = False) -> None:
        """Let nothing more fall due; with `at_once`, neither wait for outstanding requests nor read back the writes."""
        self._stopping, self._at_once = True, at_once

    async def run(self) -> TrafficResult:
        """Send until `stop`, and wait for outstanding requests; return the result.

        Before that, look whether people are shown the writes, read them back, and remove them.
        """
        async with asyncio.TaskGroup() as group:
            await self._arrivals(group)
            self._ended = self._loop.time()
            if self._at_once:
                self._cut = len(self._outstanding)
                for task in self._outstanding:
                    task.cancel()
        if not self._at_once:
            plan = self._plan
            self._exposed, self._unchecked = await look(plan.base, plan.token, self._requests, self._ledger.traces())
        seconds = ABANDON_SECONDS if self._at_once else SETTLE_SECONDS
        await self._ledger.settle(self._client, seconds=seconds, read_back=not self._at_once)
        self._clock.stop()
        await self._client.aclose()
        return self._result()

    async def abandon(self) -> None:
        """Remove as many of the writes as a few seconds allow; nobody is listening any more."""
        await self._ledger.settle(self._client, seconds=ABANDON_SECONDS, read_back=False)
        self._ledger.close()
        await self._client.aclose()

    def snapshot(self) -> Snapshot:
        """Return what is known so far."""
        settled = self._held and not self._outstanding
        return Snapshot(
            seconds=round(self._loop.time() - self._started, 3),
            phase=self._phases[-1].name,
            outstanding=len(self._outstanding),
            shares=self._tally.shares(),
            failures=self._tally.examples(),
            series=self._tally.series() if settled else (),
            lag_ms=round(self._lag * 1000, 1),
            settled=settled,
        )

    async def _arrivals(self, group: asyncio.TaskGroup) -> None:
        number = 0
        while not self._stopping:
            if self._held:
                await asyncio.sleep(HELD_SECONDS)
                number = math.ceil((self._loop.time() - self._started) * self._plan.rate)
                continue
            due = self._started + number / self._plan.rate
            now = self._loop.time()
            if due > now:
                # In slices, so that a slow rate does not make `stop` wait.
                await asyncio.sleep(min(due - now, 0.05))
                continue
            number += 1
            self._lag = max(self._lag, now - due)
            if now - due > SKIP_AFTER_SECONDS:
                self._skipped += 1
                continue
            task = group.create_task(self._one(self._mix.next(), due, self._phases[-1].name))
            self._outstanding.add(task)
            task.add_done_callback(self._outstanding.discard)

    async def _one(self, turn: Turn, due: float, phase: str) -> None:
        exchange, write = turn.sent, turn.write
        seconds = exchange.spec.seconds or self._plan.timeout
        if isinstance(exchange, Exchange) and exchange.spec.writes:
            write = self._ledger.begin(exchange, phase)
        if turn.write:
            turn.write.began(exchange)
        sent = self._loop.time()
        before = self._clock.stalled(sent) - max(0.0, sent - due - StallClock.TOLERANCE)
        answer: Answer | None = None
        error: RequestFailed | None = None
        try:
            answer = await self._clock.within(seconds, self._client.send(exchange.call(), fresh=turn.fresh))
            exchange.check(answer)
        except TimeoutError:
            error = NoAnswer("timeout", f"no answer within {seconds:g} s")
        except RequestFailed as failure:
            error = failure
        now = self._loop.time()
        if write and write is not turn.write:
            self._ledger.answered(write, answer, error)
        elif write:
            write.ended(exchange, answer, error)
        if write and not error:
            steps = turn.rest if turn.write else write.exchange.steps(write.response)
            self._mix.follow(write, steps)
        latency = (now - due) - (self._clock.stalled(now) - before)
        if error and error.kind != "timeout" and phase in QUIET and self._phases[-1].name not in QUIET:
            # A long request that began before the rollout and is cut in it is the rollout's fault. What ran into its
            # timeout was hanging before.
            phase = self._phases[-1].name
        self._tally.add(Outcome(exchange, phase, self._wall(due), latency * 1000, answer, error))

    def _wall(self, at: float) -> float:
        return self._epoch + (at - self._started)

    def _result(self) -> TrafficResult:
        known = self.snapshot()
        return TrafficResult(
            seconds=round(self._ended - self._started, 3),
            phase=known.phase,
            outstanding=self._cut,
            shares=known.shares,
            failures=(*known.failures, *self._ledger.lost[:5]),
            series=self._tally.series(),
            lag_ms=known.lag_ms,
            started=self._epoch,
            by_release=self._tally.by_release(),
            latency=self._tally.latency(),
            writes_acknowledged=self._ledger.acknowledged,
            writes_lost=len(self._ledger.lost),
            writes_unread=self._ledger.acknowledged if self._at_once else 0,
            writes_left=self._ledger.close(),
            exposed=self._exposed,
            unchecked=self._unchecked,
            ids=tuple(self._ledger.ids),
            unplaced=self._ledger.unplaced,
            bins=self._tally.bins(self._wall(self._ended)),
            phases=tuple(self._phases),
            stalled_ms=round(self._clock.stalled(self._loop.time()) * 1000, 1),
            skipped=self._skipped,
            cpu_seconds=round(time.process_time(), 3),
        )
