"""A load client: kept-alive connections, each with one request at a time. It uses less CPU than any server here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

import psutil
import uvloop

__all__ = ["Load", "WrongAnswer", "measure"]


class WrongAnswer(Exception):
    """An answer that is not 200, or a connection that ended."""


@dataclass(frozen=True)
class Load:
    """One measurement: server CPU microseconds per request, and requests per second."""

    cpu_us: float
    per_second: float


class _Caller(asyncio.Protocol):
    """One connection."""

    # Answers have a constant length, as ids and dates do, so bytes are counted and not parsed.
    def __init__(self, request: bytes) -> None:
        self.answers = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._length = 0
        self._missing = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is not a subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing <= 0:
            if not data.startswith(b"HTTP/1.1 200 ") and not self.failed.done():
                self.failed.set_exception(WrongAnswer(data[:200].decode(errors="replace")))
            if not self._length:
                head, _, _ = data.partition(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                self._length = len(head) + 4 + int(length.split(b":")[1])
            self._missing = self._length
        self._missing -= len(data)
        if self._missing <= 0:
            self.answers += 1
            self._transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.failed.done():
            self.failed.set_exception(WrongAnswer("the server closed a connection"))

    def close(self) -> None:
        """Close the connection without counting that as a failure."""
        self.failed.cancel()
        self._transport.abort()


def measure(server: psutil.Process, port: int, path: str, *, connections: int, seconds: float) -> Load:
    """Load `path` for `seconds` after a warm-up of a third of that. Raise `WrongAnswer` where an answer is wrong."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: */*\r\n\r\n".encode()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(server, port, request, connections, seconds))


async def _measure(server: psutil.Process, port: int, request: bytes, connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: _Caller(request), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    try:
        await _pass(seconds / 3, callers)
        answers, cpu, began = sum(c.answers for c in callers), _cpu(server), time.perf_counter()
        await _pass(seconds, callers)
        took = time.perf_counter() - began
        done = sum(caller.answers for caller in callers) - answers
        if not done:
            raise WrongAnswer("no answer at all")
        return Load(cpu_us=(_cpu(server) - cpu) / done * 1e6, per_second=done / took)
    finally:
        for caller in callers:
            caller.close()


async def _pass(seconds: float, callers: list[_Caller]) -> None:
    """Let `seconds` pass, unless a caller fails."""
    done, _ = await asyncio.wait([c.failed for c in callers], timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for failed in done:
        failed.result()


def _cpu(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system
