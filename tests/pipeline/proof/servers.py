"""A small HTTP service on a real socket, in a thread, that can be told to misbehave."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIST = {"name": "list", "method": "GET", "path": "/things", "expect": {"items": []}, "weight": 3}
MAKE = {
    "name": "make",
    "method": "POST",
    "path": "/things",
    "status": 201,
    "body": {"service": "s-{unique}"},
    "readback": {"path": "/things/{response.id}"},
    "remove": {"path": "/things/{response.id}"},
}
# A write with two steps: a thing is marked, and is then seen to be marked.
MARK = {"name": "mark", "method": "PATCH", "path": "/things/{response.id}", "body": {"mark": "m-{unique}"}}
SEE = {"name": "see", "method": "GET", "path": "/things/{response.id}", "expect": {"mark": "m-{unique}"}}
MAKE_AND_MARK = {**MAKE, "then": [MARK, SEE]}


@dataclass(frozen=True)
class Request:
    """One request as it arrived; `connection` counts the connections, `number` the requests, from 0."""

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """An answer; `cut` ends the connection after that many bytes of it."""

    status: int = 200
    json: Any = None
    release: str | None = "new"
    cut: int | None = None


HANG = Reply(status=0)
Behaviour = Callable[["Service", Request], Reply | None]


@dataclass
class Service:
    """Things with POST (idempotent), GET, PATCH and DELETE; `behave` may answer instead, or say None."""

    release: str = "new"
    behave: Behaviour | None = None
    things: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    _firsts: dict[str, Reply] = field(default_factory=dict)
    _connections: Iterator[int] = field(default_factory=itertools.count)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict)

    def start(self, socket: Path | None = None) -> None:
        """Listen on a free port, or on SOCKET."""
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(socket), self._loop).result()

    def refuse(self) -> None:
        """Close the listener; what is connected stays."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()

    def cut(self) -> None:
        """Break the connections of whatever is not answered yet."""
        for writer in list(self._serving.values()):
            self._loop.call_soon_threadsafe(writer.transport.abort)

    def stop(self) -> None:
        """End everything."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def answer(self, request: Request) -> Reply:
        """What a good service answers."""
        if request.path == "/health":
            return Reply(200, {"status": "ok"}, self.release)
        identity = request.path.removeprefix("/things").strip("/")
        if request.method == "POST":
            key = request.headers["idempotency-key"]
            if key not in self._firsts:
                made = {**json.loads(request.body), "id": key[:8]}
                self.things[made["id"]] = made
                self._firsts[key] = Reply(201, made, self.release)
            return self._firsts[key]
        if not identity:
            return Reply(200, {"items": []}, self.release)
        if request.method == "DELETE":
            return Reply(204 if self.things.pop(identity, None) else 404, release=self.release)
        found = self.things.get(identity)
        if request.method == "PATCH" and found:
            found.update(json.loads(request.body))
        return Reply(200 if found else 404, found, self.release)

    async def _listen(self, socket: Path | None) -> None:
        if socket:
            self._server, self.url = await asyncio.start_unix_server(self._serve, socket), f"unix:{socket}"
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        assert self._server
        for listener in self._server.sockets:
            self._loop.remove_reader(listener.fileno())
        await asyncio.sleep(0)  # what was accepted in this turn becomes a connection: on a closed server it would leak
        self._server.close()

    async def _end(self) -> None:
        await self._close()
        self._over.set()
        # Not those that are served alone: one that was accepted a moment ago becomes one of them in a few turns.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for writer in self._serving.values():
                writer.transport.abort()
            await asyncio.wait(others, timeout=0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = next(self._connections)
        task = asyncio.current_task()
        assert task
        self._serving[task] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                request = Request(len(self.requests), connection, method, path, headers, body)
                self.requests.append(request)
                reply = (self.behave and self.behave(self, request)) or self.answer(request)
                if reply is HANG:
                    await self._over.wait()
                    return
                await self._reply(writer, reply)
                if reply.cut is not None or headers.get("connection") == "close":
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            del self._serving[task]
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        body = b"" if reply.json is None else json.dumps(reply.json).encode()
        release = f"X-Release: {reply.release}\r\n" if reply.release else ""
        length = "" if reply.status == 204 else f"Content-Length: {len(body)}\r\n"
        writer.write((f"HTTP/1.1 {reply.status} X\r\n{release}{length}\r\n".encode() + body)[: reply.cut])
        await writer.drain()


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for CONDITION; fail when it does not come true in SECONDS."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        threading.Event().wait(0.01)


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for CONDITION on the event loop; fail when it does not come true in SECONDS."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the generator has no event for what a test waits for
            await asyncio.sleep(0.01)
