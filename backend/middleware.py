"""The layers around every request: its id, access event, metrics, headers and size limits; and the last resort.

They are pure ASGI: such a layer costs 2 µs. Starlette's BaseHTTPMiddleware costs 77-139 µs, and it breaks context
variables (#1678).
"""

from __future__ import annotations

import asyncio
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from time import perf_counter

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend import documentation
from backend.auth import ServiceToken
from backend.database import DatabaseUnavailable, SchemaChanged
from backend.drain import Drain
from backend.limits.tarpit import Tarpit
from backend.logs import ACCESS, request_id, shown_client, trace_id
from backend.metrics import Metrics
from backend.problems import (
    BodyTooLarge,
    HeadersTooLarge,
    InternalError,
    Problem,
    QueryTooLong,
    RequestTimeout,
    problem_response,
)
from backend.settings import Settings

__all__ = ["LastResort", "Observation"]

BEGAN = "backend.answer_began"  # set in the scope once an answer has started
WAITING = "backend.waiting"  # who ends it if none starts in time: a `Waiting`
SWEEP_SECONDS = 0.25
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
# W3C Trace Context, 3.2: version (never ff), trace id and parent id (never all zeros), flags. Only a version after 00
# may have more.
TRACE_PARENT = re.compile(
    rb"(?:00(?=.{53}\Z)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
READ = frozenset(
    {b"x-request-id", b"content-length", b"transfer-encoding", b"traceparent", b"slipway-synthetic", b"authorization"}
)
OK, REFUSED = 200, 429
# The parser has no limits, so by now all of it was read: a megabyte at most, which is what the edge lets through.
MAX_QUERY_BYTES = 8_192
MAX_HEADER_BYTES = 32_768
CLOSED_BY_CLIENT = 499  # nginx's status for a client that left before the answer
SAFE = frozenset({"GET", "HEAD"})
PROBES = frozenset({"/health", "/ready"})
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
DOCS_POLICY = (b"content-security-policy", documentation.POLICY)
API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
CLOSE = (b"connection", b"close")
TRANSPORT_SECURITY = (b"strict-transport-security", b"max-age=31536000")


class Observation:
    """The layer that gives each request an id, returns it, and records the request: an access event, the metrics."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics, drain: Drain) -> None:
        self.app = app
        self._metrics = metrics
        self._drain = drain
        self._log = structlog.get_logger(ACCESS)
        self._max_body = settings.max_body_bytes
        self._waiting = Waiting(settings.request_timeout_seconds)
        self._tarpit = Tarpit()
        self._service_token = ServiceToken(settings)
        self._shown_client = shown_client(settings)
        self._headers = [*SECURITY_HEADERS, (b"x-release", settings.release.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; other scopes (the lifespan) pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        found, header_bytes = _read_headers(scope["headers"])
        given, length = found.get(b"x-request-id", b""), found.get(b"content-length", b"")
        known = given if REQUEST_ID.fullmatch(given) else binascii.hexlify(os.urandom(8))
        request_id.set(identity := known.decode())
        trace_id.set(_trace_of(found[b"traceparent"]) if b"traceparent" in found else "")
        status, size, held = CLOSED_BY_CLIENT, 0, 0.0
        scope[WAITING] = self._waiting
        if self._drain.active and scope["path"] not in PROBES:
            self._drain.asked = True

        async def respond(message: Message) -> None:
            nonlocal status, size, held
            if message["type"] == "http.response.start":
                status, scope[BEGAN] = message["status"], True
                self._waiting.forget(scope)  # a stream may take its time
                message["headers"] = self._with_headers(message.get("headers", ()), known, scope)
                if status == REFUSED:
                    held = await self._tarpit.hold()
            else:
                size += len(message.get("body", b""))
            await send(message)

        app = self.app
        if problem := self._excess(length, header_bytes, scope["query_string"]):
            app = _refusing(problem)
        elif b"transfer-encoding" in found:
            receive = self._capped(receive)
        in_flight = self._metrics.in_flight
        in_flight.inc()
        try:
            await app(scope, receive, respond)
        finally:
            in_flight.dec()
            synthetic = b"slipway-synthetic" in found and self._is_synthetic(found)
            self._record(scope, identity, status, size, perf_counter() - started - held, synthetic=synthetic)

    def _is_synthetic(self, found: Mapping[bytes, bytes]) -> bool:
        """Return whether a request is of the proof: it says so, and has SERVICE_TOKEN.

        Whoever lacks that is a user, also the proof of a release that does not know the token: else anybody could keep
        the errors that they cause out of the alerts, and one too many costs less than one that nobody sees.
        """
        said, authorization = found[b"slipway-synthetic"], found.get(b"authorization", b"")
        return said.lower() == b"true" and self._service_token.is_in(authorization.decode("latin-1"))

    def _with_headers(
        self, given: Iterable[tuple[bytes, bytes]], identity: bytes, scope: Scope
    ) -> list[tuple[bytes, bytes]]:
        headers = [*given, *self._headers, (b"x-request-id", identity)]
        headers.append(DOCS_POLICY if scope["path"].startswith("/docs") else API_POLICY)
        if scope["scheme"] == "https":
            headers.append(TRANSPORT_SECURITY)
        if self._drain.active:
            headers.append(CLOSE)
        return headers

    def _record(self, scope: Scope, identity: str, status: int, size: int, seconds: float, *, synthetic: bool) -> None:
        # The template, not the path: a path has ids, and each new label value is a time series.
        route = getattr(scope.get("route"), "path", "__unmatched__")
        self._metrics.observe(scope["method"], route, status, seconds, synthetic=synthetic)
        quiet = status == OK and scope["path"] in PROBES
        client = scope.get("client")
        (self._log.debug if quiet else self._log.info)(
            "request",
            method=scope["method"],
            path=scope["path"],
            route=route,
            status=status,
            bytes=size,
            ms=round(seconds * 1000, 3),
            request_id=identity,
            client=self._shown_client(client[0]) if client else None,
        )

    def _excess(self, length: bytes, header_bytes: int, query: bytes) -> Problem | None:
        if length.isdigit() and int(length) > self._max_body:
            return self._too_large()
        if header_bytes > MAX_HEADER_BYTES:
            return HeadersTooLarge(f"The header fields may have at most {MAX_HEADER_BYTES} bytes.")
        if len(query) > MAX_QUERY_BYTES:
            return QueryTooLong(f"The query may have at most {MAX_QUERY_BYTES} bytes.")
        return None

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body may have at most {self._max_body} bytes.")

    def _capped(self, receive: Receive) -> Receive:
        """Return a bounded `receive` for a body whose length the client did not declare (chunked)."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise self._too_large()
            return message

        return limited


class Waiting:
    """The requests whose answer has not begun. Their tasks are cancelled `seconds` after they came, or soon after that.

    One timer for all of them: `asyncio.timeout`, which has one for each, costs 10 µs a request.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[int, tuple[asyncio.Task[object], float]] = {}  # by the identity of the request's scope
        self._late: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, scope: Scope) -> None:
        """Wait for the answer to the request of `scope`, which the current task serves."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._since[id(scope)] = (task, loop.time())
        if self._timer is None:
            self._timer = loop.call_later(SWEEP_SECONDS, self._sweep, loop)

    def forget(self, scope: Scope) -> None:
        """Wait no longer."""
        self._since.pop(id(scope), None)
        self._late.discard(id(scope))

    def is_late(self, scope: Scope) -> bool:
        """Return whether the request's task was cancelled, and take that back; say so only once."""
        if id(scope) not in self._late:
            return False
        self._late.remove(id(scope))
        task = asyncio.current_task()
        return task is not None and task.uncancel() == 0  # otherwise somebody else has cancelled it, too

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._since else None
        now = loop.time()
        for key, (task, since) in list(self._since.items()):
            if now - since >= self._seconds:
                del self._since[key]
                self._late.add(key)
                task.cancel()


class LastResort:
    """The layer that answers what a handler does not, inside CORS, so that a browser may read it.

    An unhandled error is a 500 problem, and an answer that has not begun within REQUEST_TIMEOUT_SECONDS a 504. A read
    that a migration has crossed is carried out once more; a write, which may have done something elsewhere, is a 503.
    """

    def __init__(self, app: ASGIApp, *, debug: bool) -> None:
        self.app = app
        self._debug = debug
        self._log = structlog.get_logger("error")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        waiting: Waiting = scope[WAITING]
        waiting.begin(scope)
        try:
            await self._twice_at_most(scope, receive, send)
        except HTTPException as error:
            if BEGAN in scope:
                raise
            await problem_response(error)(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            late = waiting.is_late(scope)
            # Half an answer cannot be completed: uvicorn cuts the connection.
            if BEGAN in scope or (isinstance(error, asyncio.CancelledError) and not late):
                raise
            if late:
                self._log.warning("request timed out", path=scope["path"])
                problem = RequestTimeout("The answer did not begin within REQUEST_TIMEOUT_SECONDS.")
                await problem_response(problem)(scope, receive, send)
                return
            self._log.exception("unhandled error", path=scope["path"])
            detail = repr(error) if self._debug else "The service failed; search its logs for this request id."
            await problem_response(InternalError(detail))(scope, receive, send)
        finally:
            waiting.forget(scope)

    async def _twice_at_most(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            try:
                await self.app(scope, receive, send)
            except SchemaChanged:
                if BEGAN in scope or scope["method"] not in SAFE:
                    raise
                await self.app(scope, receive, send)
        except SchemaChanged as error:
            raise DatabaseUnavailable("A migration has just changed what a query returns.") from error


def _refusing(problem: Problem) -> ASGIApp:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await problem_response(problem)(scope, receive, send)

    return refuse


def _read_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], int]:
    """Return the headers that this layer reads, and the bytes of all."""
    found: dict[bytes, bytes] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name in READ:
            found[name] = value
    return found, size


def _trace_of(parent: bytes) -> str:
    """Return the trace id in `parent`, a `traceparent` header; "" where it is none."""
    match = TRACE_PARENT.fullmatch(parent)
    return match[1].decode() if match else ""
