from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from pipeline.config.requests import parse_requests
from pipeline.proof.exchange import HEALTH
from pipeline.proof.generator import Generator, StallClock
from pipeline.proof.plan import TrafficPlan
from pipeline.proof.results import TrafficResult
from tests.pipeline.proof.servers import HANG, LIST, MAKE, MAKE_AND_MARK, MARK, Reply, Service, until


async def run(plan: TrafficPlan, *, count: int = 40, enough: Callable[[], object] = lambda: True) -> TrafficResult:
    """Send COUNT requests or so, and go on until it is ENOUGH."""
    generator = Generator(plan)
    work = asyncio.get_running_loop().create_task(generator.run())
    await until(lambda: generator.snapshot().sent + generator.snapshot().outstanding >= count and bool(enough()))
    generator.stop()
    return await work


def block(seconds: float) -> None:
    """Keep the event loop from running, as a busy machine does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass  # a sleep would let the loop run


class TestStallClock:
    async def test_counts_what_the_loop_could_not_run(self) -> None:
        """A stall is known as soon as it is over, before the tick that is late has run."""
        loop = asyncio.get_running_loop()
        clock = StallClock(loop)
        block(0.2)
        assert clock.stalled(loop.time()) > 0.18
        clock.stop()

    async def test_waits_for_work_without_the_stalls(self) -> None:
        """What was answered in a stall is no timeout, however long the stall."""
        loop = asyncio.get_running_loop()
        clock = StallClock(loop)
        done = asyncio.Event()
        loop.call_soon(block, 0.3)
        loop.call_later(0.35, done.set)
        assert await clock.within(0.2, done.wait())
        clock.stop()

    async def test_gives_up_on_what_does_not_come(self) -> None:
        """A timeout cancels the work."""
        loop = asyncio.get_running_loop()
        clock, never = StallClock(loop), loop.create_future()
        with pytest.raises(TimeoutError):
            await clock.within(0.05, asyncio.wait_for(never, None))
        await asyncio.sleep(0)
        assert never.cancelled()
        clock.stop()


class TestGenerator:
    async def test_mixes_requests_by_weight_over_fresh_and_kept_connections(
        self, plan: TrafficPlan, service: Service
    ) -> None:
        """Three reads for a write, and of each half over connections of their own."""
        result = await run(plan, count=80)
        sent = service.requests[: result.sent]
        for method, share in (("GET", 0.75), ("POST", 0.25)):
            mine = [request for request in sent if request.method == method]
            assert len(mine) == pytest.approx(share * result.sent, abs=3)
            fresh = [request for request in mine if request.headers.get("connection") == "close"]
            assert len(fresh) == pytest.approx(len(mine) / 2, abs=2)

    async def test_goes_on_whatever_the_service_does(self, plan: TrafficPlan, service: Service) -> None:
        """A service that answers nothing gets as many requests as a good one, and each is a timeout."""
        service.behave = lambda _service, _request: HANG
        result = await run(replace(plan, requests=plan.requests[:1], timeout=0.3))
        await until(lambda: len(service.requests) >= result.sent)  # its thread may be late
        assert len(service.requests) == result.sent >= 40
        assert result.shares[0].failed == {"timeout": result.sent}
        due = plan.rate * (result.seconds - result.stalled_ms / 1000)
        assert result.sent + result.skipped > due - 10

    async def test_waits_as_long_as_a_request_says(self, plan: TrafficPlan, service: Service) -> None:
        """A request with `seconds` of its own may take those, and no others; it says nothing about the latency."""
        long = plan.requests[0].model_copy(update={"seconds": 5.0})
        result = await run(replace(plan, requests=(long,), timeout=0.001))
        assert {failure.request for failure in result.failures} <= {HEALTH.name}  # that one has a millisecond
        assert result.latency is None
        service.behave = lambda _service, request: None if request.path == HEALTH.path else HANG
        short = long.model_copy(update={"seconds": 0.3})
        result = await run(replace(plan, requests=(short,), timeout=60))
        assert {failure.detail for failure in result.failures} == {"no answer within 0.3 s"}

    async def test_does_not_blame_the_service_for_its_own_stalls(self, plan: TrafficPlan) -> None:
        """Requests that fell due while this process could not run count without that time; it is reported."""
        loop = asyncio.get_running_loop()
        loop.call_later(0.1, block, 0.6)
        result = await run(replace(plan, rate=50), count=50)  # few enough for the service, which answers them at once
        assert result.failed == 0
        assert result.latency
        assert result.latency.p95 < 400  # more than half of them fell due in it
        assert result.lag_ms > 500
        assert result.stalled_ms > 500

    async def test_skips_what_is_older_than_a_second(self, plan: TrafficPlan) -> None:
        """After a long stall no flood is sent; what was skipped is counted."""
        asyncio.get_running_loop().call_later(0.05, block, 1.3)
        plan = replace(plan, rate=50)
        result = await run(plan, count=50)
        assert result.skipped > 0.2 * plan.rate
        assert result.failed == 0

    async def test_holds_until_the_next_phase(self, plan: TrafficPlan, service: Service) -> None:
        """Held, it waits for what is outstanding and sends nothing; the phase after that makes up for nothing."""
        service.behave = lambda _service, _request: HANG
        generator = Generator(replace(plan, requests=plan.requests[:1], timeout=0.3))
        work = asyncio.get_running_loop().create_task(generator.run())
        await until(lambda: generator.snapshot().outstanding >= 5)
        generator.hold()
        assert not generator.snapshot().settled
        await until(lambda: generator.snapshot().settled)
        held = generator.snapshot().sent
        await until(lambda: len(service.requests) >= held)
        await asyncio.sleep(0.5)
        assert (len(service.requests), generator.snapshot().sent) == (held, held)
        service.behave = None
        generator.phase("confirm")
        began = time.monotonic()
        await until(lambda: len(service.requests) > held)
        made = len(service.requests) - held
        assert made <= plan.rate * (time.monotonic() - began) + 2
        generator.stop()
        result = await work
        assert (result.failed, result.skipped, result.settled) == (held, 0, False)

    async def test_asks_for_health_all_the_time(self, plan: TrafficPlan, service: Service) -> None:
        """One request in twenty is enough beside others; it is counted, and is no part of the latency."""
        result = await run(plan, count=100)
        asked = [request for request in service.requests[: result.sent] if request.path == "/health"]
        assert len(asked) == result.sent // 20
        (share,) = result.shares
        assert (share.health, share.telling) == (len(asked), result.sent - len(asked))

    async def test_asks_for_health_alone_where_both_releases_know_nothing_else(
        self, plan: TrafficPlan, service: Service
    ) -> None:
        """A team that replaced its whole table is asked nothing of it until the new release runs alone."""
        generator = Generator(replace(plan, requests=()))
        work = asyncio.get_running_loop().create_task(generator.run())
        await until(lambda: generator.snapshot().sent >= 5)
        assert {request.path for request in service.requests} == {"/health"}
        generator.phase("baseline", plan.requests)
        await until(lambda: generator.snapshot().telling >= 5)
        generator.stop()
        result = await work
        telling = {share.phase: share.telling > 0 for share in result.shares}
        assert telling == {"bake": False, "baseline": True}
        assert [phase.name for phase in result.phases] == ["bake", "baseline"]


def marked(service: Service) -> int:
    """How many steps changed something until now."""
    return sum(one.method == "PATCH" for one in service.requests)


class TestSteps:
    @pytest.fixture(name="steps")
    def _steps(self, plan: TrafficPlan) -> TrafficPlan:
        """A read, and a write with two steps."""
        specs = parse_requests([{**LIST, "weight": 1}, MAKE_AND_MARK])
        return replace(plan, requests=specs, rate=100)

    async def test_are_requests_of_their_own(self, steps: TrafficPlan, service: Service) -> None:
        """They are counted, what they change is seen by the next one, and the write is read back and removed."""
        result = await run(steps, enough=lambda: marked(service) > 3)
        assert (result.failed, result.writes_lost, result.writes_left, service.things) == (0, 0, 0, {})
        seen = [one for one in service.requests[: result.sent] if one.path.startswith("/things/")]
        sent = Counter(one.method for one in seen)
        assert result.writes_acknowledged >= sent["PATCH"] >= sent["GET"] > 0

    async def test_have_keys_of_their_own(self, steps: TrafficPlan, service: Service) -> None:
        """A service must not take a step for the write repeated; a step that reads has no key."""
        await run(steps, enough=lambda: marked(service) > 3)
        keyed = [(one.method, one.headers.get("idempotency-key")) for one in service.requests]
        keys = [key for method, key in keyed if method in ("POST", "PATCH")]
        assert None not in keys
        assert len(set(keys)) == len(keys)
        assert {key for method, key in keyed if method == "GET"} == {None}

    async def test_are_judged_for_the_release_that_answered_them(self, steps: TrafficPlan, service: Service) -> None:
        """The write was answered by the old release, its step by the new one, which fails it."""
        service.behave = lambda server, request: (
            Reply(500, {}, "new") if request.method == "PATCH" else replace(server.answer(request), release="old")
        )
        result = await run(steps, enough=lambda: marked(service) > 3)
        failed = {share.release: dict(share.failed) for share in result.shares}
        assert failed["old"] == {}
        assert failed["new"].keys() == {"5xx"}
        (kind,) = {(failure.request, failure.method, failure.release) for failure in result.failures}
        assert kind == ("mark", "PATCH", "new")

    async def test_are_not_sent_after_what_failed(self, steps: TrafficPlan, service: Service) -> None:
        """What rests on a failed write, or on a failed step, would fail for nothing."""
        service.behave = lambda _, request: Reply(503) if request.method == "POST" else None
        await run(steps)
        assert not [one for one in service.requests if one.method == "PATCH"]
        service.requests.clear()
        service.behave = lambda _, request: Reply(404) if request.method == "PATCH" else None
        result = await run(steps, enough=lambda: marked(service) > 3)
        marks = [one for one in service.requests if one.method == "PATCH"]
        assert sum(share.failed.get("status", 0) for share in result.shares) == len(marks)
        assert {failure.request for failure in result.failures} == {"mark"}

    async def test_fail_a_write_whose_answer_lacks_what_they_need(self, plan: TrafficPlan, service: Service) -> None:
        """The line names the field, and the write is removed all the same."""
        specs = parse_requests([{**MAKE, "then": [{**MARK, "path": "/things/{response.number}"}]}])
        result = await run(replace(plan, requests=specs))
        assert result.failures[0].detail.startswith("the answer holds no `number`, which `then` needs: 201 ")
        assert {failure.request for failure in result.failures} == {"make"}
        assert service.things == {}

    async def test_are_asked_again_where_nobody_knows_what_they_did(self, plan: TrafficPlan, service: Service) -> None:
        """With the same key, before the write is removed: a late one must not come to what is not there any more."""
        specs = parse_requests([MAKE_AND_MARK])
        service.behave = lambda server, request: (
            Reply(200, {}, cut=5) if request.method == "PATCH" and marked(server) == 1 else None
        )
        result = await run(replace(plan, requests=specs, rate=50), enough=lambda: marked(service) > 1)
        first = next(one for one in service.requests if one.method == "PATCH")
        mine = [one.method for one in service.requests if one.path == first.path]
        again = [
            one for one in service.requests if one.headers.get("idempotency-key") == first.headers["idempotency-key"]
        ]
        assert [one.method for one in again] == ["PATCH", "PATCH"]
        assert mine == ["PATCH", "PATCH", "GET", "DELETE"]
        assert sum(share.failed.get("reset", 0) for share in result.shares) == 1
