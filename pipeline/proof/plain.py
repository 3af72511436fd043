"""A client of the standard library alone, for the smoke test, which may run where nothing of ours is installed."""

from __future__ import annotations

import asyncio
import http.client
import io
from http import HTTPStatus
from urllib.parse import urlsplit

from pipeline.proof.answers import Answer, Call, NoAnswer, headers_of, usual_headers

__all__ = ["PlainClient"]

EMPTY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
BROKEN = (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, http.client.HTTPException, ValueError)


class PlainClient:
    """A client of `base` (`http://host:port`, or `unix:/path` of a socket): a connection for each request."""

    def __init__(self, base: str, token: str | None = None) -> None:
        self._socket = base.removeprefix("unix:") if base.startswith("unix:") else None
        parts = urlsplit("http://localhost" if self._socket else base)
        self._host, self._port = parts.hostname, parts.port or 80
        self._headers = [("Host", parts.netloc), *usual_headers(token), ("Connection", "close")]

    async def send(self, call: Call) -> Answer:
        """Send `call` and return the answer. Raise `NoAnswer` where there is none; there is no timeout here."""
        content, lines = call.content or b"", [f"{call.method} {call.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers_of(call, self._headers)]
        if content or call.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(content)}")
        try:
            if self._socket:
                reader, writer = await asyncio.open_unix_connection(self._socket)
            else:
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise NoAnswer("refused", f"no connection: {error}") from error
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + content)
            return await _answer(reader, call.method)
        except BROKEN as error:
            detail = f"the connection broke before the answer was whole: {type(error).__name__} {error}"
            raise NoAnswer("reset", detail) from error
        finally:
            writer.transport.abort()  # the answer is over, or nobody waits for it


async def _answer(reader: asyncio.StreamReader, method: str) -> Answer:
    """Read one answer, and no more: not each server ends the connection when it is asked to."""
    status = 100
    while status < HTTPStatus.OK:  # RFC 9110 15.2: others may come before the final one
        line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        status = int(line.split(maxsplit=2)[1])
    headers = http.client.parse_headers(io.BytesIO(rest))
    if method == "HEAD" or status in EMPTY:
        body = b""
    elif "chunked" in headers.get("Transfer-Encoding", "").lower():
        body = await _chunks(reader)
    elif "Content-Length" in headers:
        body = await reader.readexactly(int(headers["Content-Length"]))
    else:
        body = await reader.read()
    return Answer(status=status, release=headers.get("X-Release") or None, body=body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """Return the content of chunks, without what may follow the last one (RFC 9112 7.1)."""
    body = b""
    while size := int((await reader.readuntil(b"\n")).partition(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    return body
