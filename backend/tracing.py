"""Traces, by OpenTelemetry: what a request did, and how long it waited for what.

A span is made where a request is traced, and nowhere else: what runs in the background has none. No span has a value:
no parameter or literal of a statement, no key of Redis, no query string, no header, no text of an error.

Without OTEL_EXPORTER_OTLP_ENDPOINT there is no `Tracing`, and nothing of the SDK is imported: it takes 0.3 s and 15 MB.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any, TypeAlias

import asyncpg
from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.logs import request_id, trace_id
from backend.settings import Settings

__all__ = ["TracedRequests", "Tracing", "begin_tracing"]

Method: TypeAlias = Callable[..., Awaitable[Any]]

STATEMENTS = ("execute", "executemany", "fetch", "fetchmany", "fetchrow", "fetchval")  # methods of a connection
SHOWN_CHARACTERS = 4096  # of a statement
# Names in double quotes stay. Then what goes: texts, the dollar-quoted too, also one whose end was cut off; comments;
# numbers, but not those of a parameter ($1) or a name (t1).
LITERAL = re.compile(
    r"""("(?:[^"]|"")*"?)"""
    r"""|\b[eE]'(?:[^'\\]|\\.|'')*'?|'(?:[^']|'')*'?|\$((?:[^\W\d]\w*)?)\$.*?(?:\$\2\$|\Z)"""
    r"""|--[^\n]*|/\*.*?(?:\*/|\Z)|(?<![\w$])\d[\w.]*""",
    re.DOTALL,
)
CONTEXT = frozenset({b"traceparent", b"tracestate"})
PROBES = frozenset({"/health", "/ready"})
SERVER_ERROR = 500


class Tracing:
    """The spans of one process, made by `tracer`."""

    def __init__(self, tracer: Tracer, close: Callable[[], None]) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self.close = close  # sends what is left; takes half a second, whatever hangs

    def begin(self, method: str, headers: Mapping[str, str]) -> Span:
        """Begin the span of a request, in the trace that `headers` have, if they do. The current task is in it."""
        context = self._propagator.extract(headers, Context())
        span = self._tracer.start_span(
            method, context, kind=SpanKind.SERVER, attributes={"http.request.method": method}
        )
        attach(trace.set_span_in_context(span, context))
        return span

    @contextmanager
    def span(self, name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: str) -> Iterator[None]:
        """Make a span of the block, if what runs now is traced."""
        if not trace.get_current_span().is_recording():
            yield
            return
        named = {key.replace("_", "."): value for key, value in attributes.items()}
        span = self._tracer.start_span(name, kind=kind, attributes=named)
        try:
            yield
        except BaseException as error:
            # Its type alone: the text of a broken constraint has the value that broke it.
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()

    def connection_class(self) -> type[asyncpg.Connection[Any]]:
        """Return the class of connections to PostgreSQL each of whose statements is a span."""

        def traced(method: Method) -> Method:
            @wraps(method)
            async def call(connection: Any, query: str, *args: Any, **options: Any) -> Any:
                operation, text = _shown(query[:SHOWN_CHARACTERS])
                with self.span(operation, SpanKind.CLIENT, db_system_name="postgresql", db_query_text=text):
                    return await method(connection, query, *args, **options)

            return call

        methods = {name: traced(getattr(asyncpg.Connection, name)) for name in STATEMENTS}
        return type("TracedConnection", (asyncpg.Connection,), {"__slots__": (), **methods})

    def redis_class(self) -> type[Redis]:
        """Return the class of clients of Redis each of whose commands, or pipelines of them, is a span."""
        tracing = self

        class TracedPipeline(Pipeline):
            async def execute(self, *args: Any, **options: Any) -> list[Any]:
                with tracing.span("PIPELINE", SpanKind.CLIENT, db_system_name="redis"):
                    return await super().execute(*args, **options)

        class TracedRedis(Redis):
            async def execute_command(self, *args: Any, **options: Any) -> Any:
                with tracing.span(str(args[0]), SpanKind.CLIENT, db_system_name="redis"):
                    return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

            def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
                return TracedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)

        return TracedRedis


def begin_tracing(settings: Settings) -> Tracing | None:
    """Begin to send traces to OTEL_EXPORTER_OTLP_ENDPOINT; return None where there is none.

    A thread sends them, so this is for a process that forks no more.
    """
    if settings.otel_exporter_otlp_endpoint is None:
        return None
    from backend.tracing_export import begin_export

    provider, close = begin_export(settings)
    # For spans of a team's own, and what a library makes.
    trace.set_tracer_provider(provider)
    return Tracing(provider.get_tracer("backend"), close)


class TracedRequests:
    """The layer that makes each request a span. It is inside of `Observation`, which has told good from bad by then."""

    def __init__(self, app: ASGIApp, *, tracing: Tracing) -> None:
        self.app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Probes are no spans."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self.app(scope, receive, send)
            return
        headers = {}
        if trace_id.get():  # the caller's
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in CONTEXT}
        span = self._tracing.begin(scope["method"], headers)
        trace_id.set(trace.format_trace_id(span.get_span_context().trace_id))
        status = 0

        async def respond(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, respond)
        finally:
            _end(span, scope, status)


def _end(span: Span, scope: Scope, status: int) -> None:
    if span.is_recording():
        # The template: a path has ids.
        route = getattr(scope.get("route"), "path", "__unmatched__")
        span.update_name(f"{scope['method']} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("request_id", request_id.get())
        if status:  # else the client has left
            span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERROR:
            span.set_status(StatusCode.ERROR)
    span.end()


@lru_cache(maxsize=1024)
def _shown(query: str) -> tuple[str, str]:
    """Return the operation of a statement (`SELECT`) and its text without literals and comments."""
    text = " ".join(
        LITERAL.sub(lambda found: found[1] or (" " if found[0][:2] in {"--", "/*"} else "?"), query).split()
    )
    text = text.rstrip(";")
    return text.partition(" ")[0].upper() or "?", text
