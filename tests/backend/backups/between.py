"""A way to an S3 that is slow, stands still, or whose storage is full: a proxy of a test's own before a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ["FULL", "SLOW", "STALLS", "between"]

SLOW, STALLS, FULL = "slow", "stalls", "full"
CHUNK_BYTES, PAUSE_SECONDS = 1024, 0.05  # 20 kB/s where it is slow
# As MinIO answers.
NO_ROOM = b"<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive threshold.</Message></Error>"  # fmt: skip  # noqa: E501
PUTS = 2  # objects that come through before it stands still


@asynccontextmanager
async def between(endpoint: str, fault: str) -> AsyncIterator[str]:
    """Yield the address of the proxy before `endpoint`, with that `fault`."""
    there, puts = urlsplit(endpoint), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(there.hostname, there.port)
        with contextlib.closing(writer), contextlib.closing(up_writer), contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                back = group.create_task(pump(up_reader, writer))
                await upwards(reader, writer, up_writer)
                back.cancel()

    async def upwards(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up_writer: asyncio.StreamWriter
    ) -> None:
        nonlocal puts
        while data := await reader.read(CHUNK_BYTES):
            puts += data.startswith(b"PUT ")
            if fault == FULL and data.startswith(b"PUT "):
                head = (
                    f"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: {len(NO_ROOM)}\r\nConnection: close\r\n\r\n"
                )
                writer.write(head.encode() + NO_ROOM)
                await writer.drain()
                return
            if fault == STALLS and puts > PUTS:
                continue
            await hand_on(data, up_writer)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await hand_on(data, writer)
        writer.close()

    async def hand_on(data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if fault == SLOW:
            await asyncio.sleep(PAUSE_SECONDS)

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"
