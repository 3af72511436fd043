"""One HTTP request, sent once: an answer, or why there is none."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpcore2

from pipeline.errors import UsageError
from pipeline.proof.template import difference

__all__ = ["Answer", "Call", "Client", "NoAnswer", "RequestFailed", "check"]

# A pool hands out its first idle connection, so one pool would keep one connection busy and never meet the race of
# idle connections that close. Eight pools in turn give eight that idle between requests, as a browser's do.
KEPT_ALIVE = 8
# Below the 5 s after which uvicorn and many others close an idle connection: the client lets go first.
IDLE_SECONDS = 4.0


@dataclass(frozen=True)
class Call:
    """A request with everything filled in."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer. `release` is its `X-Release`."""

    status: int
    release: str | None
    body: bytes

    def json(self) -> Any:
        """The body as JSON; raises ValueError where it is none."""
        return json.loads(self.body)

    def __str__(self) -> str:
        return f"{self.status} {self.body[:200].decode('utf-8', 'replace')}".strip()


class RequestFailed(Exception):
    """A request did not go as declared: `kind` is refused, reset, timeout, 5xx, status or body."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


class NoAnswer(RequestFailed):
    """Nothing, or not all of an answer came: `kind` is refused, reset or timeout."""


class Client:
    """Sends to BASE (`http://host:port`, `https://…`, or `unix:/path` of a socket). It never sends anything twice.

    httpcore2 alone: httpx2 above it would keep cookies and cost a fifth more CPU. Its pool tries another connection
    only while nothing was sent (`ConnectionNotAvailable` is raised before the first byte, and for nothing else).
    """

    def __init__(self, base: str, token: str | None = None) -> None:
        socket = base.removeprefix("unix:") if base.startswith("unix:") else None
        parts = urlsplit("http://localhost" if socket else base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"url: `{base}` is no address: write it as http://host:port")
        self._prefix = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        # None: no limit. An open model must never wait for a connection of its own.
        pools = [
            httpcore2.AsyncConnectionPool(
                max_connections=None, max_keepalive_connections=kept, keepalive_expiry=IDLE_SECONDS, uds=socket
            )
            for kept in (0, *(KEPT_ALIVE * [None]))
        ]
        self._fresh, self._kept = pools[0], itertools.cycle(pools[1:])
        self._pools = pools
        self._headers = [("User-Agent", "slipway-proof"), ("Accept", "*/*"), ("Slipway-Synthetic", "true")]
        if token:
            self._headers.append(("Authorization", f"Bearer {token}"))

    async def send(self, call: Call, *, fresh: bool = False) -> Answer:
        """Send CALL over a connection of its own or one kept alive; without an answer, raise `NoAnswer`.

        There is no timeout in here: who waits knows best how much of the waiting was the service's.
        """
        given = {name.lower() for name, _ in call.headers}
        headers = [header for header in self._headers if header[0].lower() not in given]
        headers += [*call.headers, *([("Connection", "close")] if fresh else [])]
        pool = self._fresh if fresh else next(self._kept)
        try:
            answer = await pool.request(call.method, self._prefix + call.path, headers=headers, content=call.content)
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
            raise NoAnswer("refused", f"no connection: {error}") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            raise NoAnswer("reset", f"the connection broke before the answer was whole: {error}") from error
        release = next(
            (value.decode("latin-1") for name, value in answer.headers if name.lower() == b"x-release"), None
        )
        return Answer(status=answer.status, release=release or None, body=answer.content)

    async def aclose(self) -> None:
        """Close every connection."""
        for pool in self._pools:
            await pool.aclose()


def check(answer: Answer, status: int, expect: Any) -> Any:
    """The JSON of ANSWER (None when it is not JSON and nothing is expected of it).

    Raises `RequestFailed` where it has not STATUS, or does not hold EXPECT.
    """
    if answer.status != status:
        raise RequestFailed("5xx" if answer.status >= 500 else "status", str(answer))  # noqa: PLR2004 - RFC 9110 15.6
    try:
        value = answer.json()
    except ValueError:
        if expect is None:
            return None
        raise RequestFailed("body", f"not JSON: {answer}") from None
    found = None if expect is None else difference(value, expect)
    if found:
        raise RequestFailed("body", f"{found}: {answer}")
    return value
