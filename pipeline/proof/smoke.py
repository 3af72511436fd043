"""The smoke test: every declared request and step is sent once, and writes are read back and removed.

It also runs by itself, packed with what it imports (`pipeline.proof.packed`), where a replica is that nobody else
reaches. Then its orders are in the archive; its output is the journal of its writes, and a last line with what it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config.requests import RequestSpec, parse_requests
from pipeline.proof.answers import Answer, Call, NoAnswer, RequestFailed
from pipeline.proof.exchange import Exchange, Sent
from pipeline.proof.plain import PlainClient
from pipeline.proof.results import Failure
from pipeline.proof.tally import Outcome
from pipeline.proof.writes import Ledger

__all__ = ["ORDERS", "SMOKE_SECONDS", "Smoked", "main", "smoke", "smoke_limit", "smoked_of"]

SMOKE_SECONDS = 10.0  # for one answer
ORDERS = "orders.json"
RESULT = "smoked"
READY_PAUSE = 0.2  # seconds
LAST_SECONDS = 3.0  # to remove what was written, where it is told to end
ENDED = 128 + signal.SIGTERM
SHOWN, SHOWN_CHARACTERS = 5, 200  # failures in a record, which has to be short


@dataclass(frozen=True)
class Smoked:
    """What a smoke test saw. `ids` and `unplaced` are as in `TrafficResult`: what a command has to remove."""

    failures: tuple[Failure, ...] = ()
    ids: tuple[str, ...] = ()
    unplaced: int = 0


def smoke(
    specs: Sequence[RequestSpec],
    base: str,
    token: str | None,
    timeout: float = SMOKE_SECONDS,
    journal: Path | None = None,
    *,
    tries: int = 1,
) -> Smoked:
    """Send each of `specs`, with its steps, once to `base` (`http://host:port` or `unix:/path`) and return what failed.

    Each answer may take `timeout` seconds, or its own; a request has failed once all of its `tries` did. A write that
    cannot be read back is a failure too. What cannot be removed stays in `journal`, for `clean_up`.
    """
    return asyncio.run(_smoke(specs, PlainClient(base, token), timeout, Ledger(journal), tries))


def smoke_limit(specs: Sequence[RequestSpec], tries: int) -> float:
    """Return the seconds that a smoke test of `specs` takes at most, once the replica is ready."""
    answers = sum(one.seconds or SMOKE_SECONDS for spec in specs for one in (spec, *spec.then))
    return answers * tries + 2 * SMOKE_SECONDS  # and what it reads back and removes


async def _smoke(
    specs: Sequence[RequestSpec], client: PlainClient, seconds: float, ledger: Ledger, tries: int
) -> Smoked:
    failures: list[Failure | None] = []
    try:
        for spec in specs:
            for _ in range(tries):
                failure = await _whole(client, ledger, Exchange.new(spec), seconds)
                if failure is None:
                    break
            failures.append(failure)
        await ledger.settle(client, seconds=seconds, read_back=True)
    except asyncio.CancelledError:
        await ledger.settle(client, seconds=LAST_SECONDS, read_back=False)
        raise
    finally:
        ledger.close()
    made = (write for write in ledger.writes.values() if write.response is not None and not write.by_command)
    left = [write.left() for write in made]
    failed = tuple(failure for failure in (*failures, *ledger.lost, *left) if failure)
    return Smoked(failed, tuple(ledger.ids), ledger.unplaced)


async def _whole(client: PlainClient, ledger: Ledger, exchange: Exchange, seconds: float) -> Failure | None:
    """Send `exchange` and the steps that follow it; return the first failure, after which no more is sent."""
    write = ledger.begin(exchange, "smoke") if exchange.spec.writes else None
    outcome = await _once(client, exchange, seconds)
    if write:
        ledger.answered(write, outcome.answer, outcome.error)
        for step in exchange.steps(write.response):
            if outcome.error:
                break
            write.began(step)
            outcome = await _once(client, step, seconds)
            write.ended(step, outcome.answer, outcome.error)
    return outcome.example(outcome.error.kind) if outcome.error else None


async def _once(client: PlainClient, sent: Sent, seconds: float) -> Outcome:
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


async def _wait_ready(client: PlainClient, seconds: float) -> None:
    """Wait until `/ready` answers with 200, `seconds` at most: what fails after that is a failure of its own."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(NoAnswer, TimeoutError):  # it does not listen yet, or is busy with its start
            async with asyncio.timeout(READY_PAUSE * 10):
                if (await client.send(Call("GET", "/ready"))).status == 200:  # noqa: PLR2004 - RFC 9110 15.3.1
                    return
        await asyncio.sleep(READY_PAUSE)


def main(archive: str) -> None:
    """Do what the orders in `archive` say, and print the journal and the result.

    SIGTERM ends it, as soon as it has removed what it wrote.
    """
    orders: dict[str, Any] = json.loads(zipfile.ZipFile(archive).read(ORDERS))
    specs = parse_requests(orders["requests"], ORDERS)

    async def whole() -> Smoked:
        task = asyncio.current_task()
        assert task is not None
        # The first process of a container ends at no signal that it does not handle.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        client = PlainClient(orders["base"], _token(orders["token"]))
        await _wait_ready(client, orders["wait"])
        return await _smoke(specs, client, SMOKE_SECONDS, Ledger(None, sys.stdout), orders["tries"])

    try:
        smoked = asyncio.run(whole())
    except asyncio.CancelledError:
        sys.exit(ENDED)
    sys.stdout.write(json.dumps({RESULT: asdict(smoked)}) + "\n")
    sys.stdout.flush()
    if orders["record"]:
        failed = [f"{one.method} {one.path}: {one.detail}"[:SHOWN_CHARACTERS] for one in smoked.failures[:SHOWN]]
        Path(orders["record"]).write_text(json.dumps({"sent": len(specs), "failed": failed}), encoding="utf-8")
        sys.exit(bool(failed))


def _token(files: Sequence[str]) -> str | None:
    """Return SERVICE_TOKEN: the variable, as a container of the service may have it, or the first of `files`."""
    found = (Path(one).read_text(encoding="utf-8") for one in files if Path(one).exists())
    return (os.environ.get("SERVICE_TOKEN") or next(found, "")).strip() or None


def smoked_of(journal: Path) -> Smoked | None:
    """Return the result with which `journal`, the output of `main`, ends; None where it was cut short.

    What was written and not removed stays in it, for `clean_up`.
    """
    last = next(iter(journal.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]), "")
    Ledger(journal).close()
    try:
        saw = json.loads(last)[RESULT]
    except (ValueError, LookupError, TypeError):
        return None
    return Smoked(tuple(Failure(**one) for one in saw["failures"]), tuple(saw["ids"]), saw["unplaced"])
