"""A client of the standard library alone, for the smoke test, which may run where nothing of ours is installed."""

from __future__ import annotations

import asyncio
import http.client
import io
from urllib.parse import urlsplit

from pipeline.proof.answers import Answer, Call, NoAnswer, headers_of, usual_headers

__all__ = ["PlainClient"]


class _Received:
    """Bytes in place of the socket that `http.client` reads an answer from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def makefile(self, *_: str) -> io.BytesIO:
        """Return the bytes as a file."""
        return io.BytesIO(self._content)


class PlainClient:
    """A client of `base` (`http://host:port`, or `unix:/path` of a socket): a connection for each request."""

    def __init__(self, base: str, token: str | None = None) -> None:
        self._socket = base.removeprefix("unix:") if base.startswith("unix:") else None
        parts = urlsplit("http://localhost" if self._socket else base)
        self._host, self._port, self._netloc = parts.hostname, parts.port or 80, parts.netloc
        self._headers = [("Host", self._netloc), *usual_headers(token), ("Connection", "close")]

    async def send(self, call: Call) -> Answer:
        """Send `call` and return the answer. Raise `NoAnswer` where there is none; there is no timeout here."""
        content, lines = call.content or b"", [f"{call.method} {call.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers_of(call, self._headers)]
        if call.content is not None or call.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(content)}")
        asked = "\r\n".join([*lines, "", ""]).encode("latin-1") + content
        received = await self._exchange(asked)
        answer = http.client.HTTPResponse(_Received(received), method=call.method)  # type: ignore[arg-type]
        try:
            if received and b"\r\n\r\n" not in received:  # http.client takes the file's end for the headers' end
                raise http.client.IncompleteRead(received)
            answer.begin()
            body = answer.read()
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            detail = f"the connection broke before the answer was whole: {type(error).__name__} {error}"
            raise NoAnswer("reset", detail) from error
        return Answer(status=answer.status, release=answer.getheader("X-Release") or None, body=body)

    async def _exchange(self, asked: bytes) -> bytes:
        try:
            if self._socket:
                reader, writer = await asyncio.open_unix_connection(self._socket)
            else:
                reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            raise NoAnswer("refused", f"no connection: {error}") from error
        try:
            writer.write(asked)
            return await reader.read()
        except OSError as error:
            raise NoAnswer("reset", f"the connection broke before the answer was whole: {error}") from error
        finally:
            writer.transport.abort()  # the answer is over, or nobody waits for it
