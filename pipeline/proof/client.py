"""One HTTP request, sent exactly once: its answer, or the reason why there is none."""

from __future__ import annotations

import itertools
from urllib.parse import urlsplit

import httpcore2

from pipeline.errors import UsageError
from pipeline.proof.answers import Answer, Call, NoAnswer, headers_of, usual_headers
from pipeline.system.ports import dial

__all__ = ["Client"]

# A pool hands out its first idle connection, so one pool would keep one connection busy and never run into the race
# with idle connections that are being closed. Eight pools, used in turn, keep eight connections that idle between
# requests, as a browser's do.
KEPT_ALIVE = 8
# Less than the 5 s after which uvicorn and many others close an idle connection, so that the client closes it first.
IDLE_SECONDS = 4.0


class Client:
    """A client of `base` (`http://host:port`, `https://…`, or `unix:/path` of a socket) that sends nothing twice.

    One that is not `synthetic` asks as people do.
    """

    # httpcore2 alone: httpx2 on top of it would keep cookies and cost a fifth more CPU. Its pool tries another
    # connection only while nothing has been sent (`ConnectionNotAvailable` is raised before the first byte, and for
    # nothing else).

    def __init__(self, base: str, token: str | None = None, *, synthetic: bool = True) -> None:
        socket = base.removeprefix("unix:") if base.startswith("unix:") else None
        address, named = dial("http://localhost" if socket else base)
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"url: `{base}` is not a valid address: write it as http://host:port")
        self._prefix = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        # None means no limit: an open model must never wait for one of its own connections.
        pools = [
            httpcore2.AsyncConnectionPool(
                max_connections=None, max_keepalive_connections=kept, keepalive_expiry=IDLE_SECONDS, uds=socket
            )
            for kept in (0, *(KEPT_ALIVE * [None]))
        ]
        self._fresh, self._kept = pools[0], itertools.cycle(pools[1:])
        self._pools = pools
        self._headers = [*usual_headers(token, synthetic=synthetic), *named.items()]

    async def send(self, call: Call, *, fresh: bool = False) -> Answer:
        """Send `call` and return the answer, over a connection of its own if `fresh`, otherwise over one kept alive.

        Raise `NoAnswer` where there is no answer. There is no timeout here.
        """
        # The caller sets the timeout: it knows best how much of the waiting was the service's.
        headers = [*headers_of(call, self._headers), *([("Connection", "close")] if fresh else [])]
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
