"""`python -m pipeline.proof`: the generator's own process, so that the work of a deploy cannot disturb its clock.

Input and output are one JSON object per line. In: the plan, then `{"phase": NAME, "requests": TABLES}` (or without
tables) and `{"hold": true}`, then `{"stop": true, "at_once": BOOL}`. Out: `{"ready": true}`, `{"snapshot": …}` four
times a second, `{"result": …}`. If the input ends before the result, the deploy died: nothing more is sent, and what
was written is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from pipeline.config.requests import parse_requests
from pipeline.proof.answers import Call, NoAnswer
from pipeline.proof.client import Client
from pipeline.proof.generator import Generator
from pipeline.proof.plan import TrafficPlan

PROGRESS_SECONDS = 0.25
HELD_SECONDS = 0.05  # between snapshots while the traffic is held: the deploy is waiting for it to settle
LINE_LIMIT = 2**24  # a plan holds two tables of requests
UNREAD_LIMIT = 2**20  # bytes that a parent may leave unread before it misses snapshots


async def _main() -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # Write through the event loop: a parent that is slow to read must not stop the clock.
    out, flushed = await loop.connect_write_pipe(_Output, sys.stdout)
    plan = TrafficPlan.load(json.loads(await reader.readline()))
    with contextlib.suppress(NoAnswer):
        # The first request imports half of anyio (40 ms): let that be this one, which reaches nobody.
        await Client("unix:/dev/null").send(Call("GET", "/"))

    def say(**line: Any) -> bool:
        heard = "snapshot" not in line or out.get_write_buffer_size() < UNREAD_LIMIT
        if heard:
            out.write(json.dumps(line).encode() + b"\n")
        return heard

    generator = Generator(plan)
    commands = loop.create_task(_obey(reader, generator))
    loop.add_signal_handler(signal.SIGTERM, commands.cancel)
    work = loop.create_task(_work(generator, say))
    await asyncio.wait({commands, work}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
        await asyncio.wait({work})
        await generator.abandon()
        if not commands.cancelled():
            commands.result()  # an invalid command is an error of the parent's
        return 1
    commands.cancel()
    work.result()
    out.close()
    await flushed.closed.wait()
    return 0


class _Output(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self.closed.set()


async def _obey(reader: asyncio.StreamReader, generator: Generator) -> None:
    """Carry out the commands of the input until it ends."""
    while line := await reader.readline():
        command = json.loads(line)
        if "phase" in command:
            given = command.get("requests")
            generator.phase(command["phase"], None if given is None else parse_requests(given, "requests"))
        elif "hold" in command:
            generator.hold()
        elif command["stop"]:
            generator.stop(at_once=command.get("at_once", False))


async def _work(generator: Generator, say: Callable[..., bool]) -> None:
    say(ready=True)
    run = asyncio.get_running_loop().create_task(generator.run())
    try:
        settled = False
        while not run.done():
            snapshot = generator.snapshot()
            if not (settled and snapshot.settled):  # what is settled does not change, and may be long
                settled = say(snapshot=snapshot.dump()) and snapshot.settled
            await asyncio.wait({run}, timeout=HELD_SECONDS if generator.held else PROGRESS_SECONDS)
    finally:
        run.cancel()
        await asyncio.wait({run})
    say(result=run.result().dump())


if __name__ == "__main__":
    # Ctrl-C and a closed terminal reach the whole process group, but the deploy decides what becomes of its proof.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        sys.exit(asyncio.run(_main()))
    except BaseExceptionGroup as group:
        # The deploy tells the last line of this process: let that be an error, and not the frame of a group.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
