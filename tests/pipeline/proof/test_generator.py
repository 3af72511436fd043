from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from pipeline.proof.generator import Generator, StallClock
from pipeline.proof.plan import TrafficPlan
from pipeline.proof.results import TrafficResult
from tests.pipeline.proof.servers import HANG, Service, until


async def run(plan: TrafficPlan, *, count: int = 40) -> TrafficResult:
    """Send COUNT requests or so."""
    generator = Generator(plan)
    work = asyncio.get_running_loop().create_task(generator.run())
    await until(lambda: generator.snapshot().sent + generator.snapshot().outstanding >= count)
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

    async def test_sends_nothing_where_both_releases_know_nothing(self, plan: TrafficPlan, service: Service) -> None:
        """A team that replaced its whole table is asked nothing until the new release runs alone."""
        generator = Generator(replace(plan, requests=()))
        work = asyncio.get_running_loop().create_task(generator.run())
        await asyncio.sleep(0.1)
        assert not service.requests
        generator.phase("bake", full=True)
        await until(lambda: generator.snapshot().sent >= 5)
        generator.stop()
        result = await work
        assert {share.phase for share in result.shares} == {"bake"}
        assert [phase.name for phase in result.phases] == ["bake", "bake"]
