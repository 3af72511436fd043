"""The smoke test: every declared request and step is sent once, and writes are read back and removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.config.requests import RequestSpec
from pipeline.proof.client import Answer, Client, NoAnswer, RequestFailed
from pipeline.proof.exchange import Exchange, Sent
from pipeline.proof.results import Failure
from pipeline.proof.tally import Outcome
from pipeline.proof.writes import Ledger

__all__ = ["smoke"]


def smoke(
    specs: Sequence[RequestSpec], base: str, token: str | None, timeout: float = 10.0, journal: Path | None = None
) -> list[Failure]:
    """Send each of `specs`, with its steps, once to `base` (`http://host:port` or `unix:/path`) and return what failed.

    Each answer may take `timeout` seconds, or its own. A write that cannot be read back is a failure too; the list is
    empty when all is well. What cannot be removed stays in `journal`, for `clean_up`.
    """
    return asyncio.run(_smoke(specs, base, token, timeout, journal))


async def _smoke(
    specs: Sequence[RequestSpec], base: str, token: str | None, seconds: float, journal: Path | None
) -> list[Failure]:
    client, ledger = Client(base, token), Ledger(journal)
    try:
        failures = [await _whole(client, ledger, Exchange.new(spec), seconds) for spec in specs]
        await ledger.settle(client, seconds=seconds, read_back=True)
    finally:
        ledger.close()
        await client.aclose()
    return [failure for failure in (*failures, *ledger.lost) if failure]


async def _whole(client: Client, ledger: Ledger, exchange: Exchange, seconds: float) -> Failure | None:
    """Send `exchange` and the steps that follow it; return the first failure, after which no more is sent."""
    write = ledger.begin(exchange, "smoke") if exchange.spec.writes else None
    outcome = await _once(client, exchange, seconds)
    if write:
        ledger.answered(write, outcome.answer, outcome.error)
        for step in exchange.steps(write.response):
            if outcome.error:
                break
            outcome = await _once(client, step, seconds)
    return outcome.example(outcome.error.kind) if outcome.error else None


async def _once(client: Client, sent: Sent, seconds: float) -> Outcome:
    started, seconds = time.time(), sent.spec.seconds or seconds
    answer: Answer | None = None
    error: RequestFailed | None = None
    try:
        async with asyncio.timeout(seconds):
            answer = await client.send(sent.call())
        sent.check(answer)
    except TimeoutError:
        error = NoAnswer("timeout", f"no answer within {seconds:g} s")
    except RequestFailed as failure:
        error = failure
    return Outcome(sent, "smoke", started, 0.0, answer, error)
