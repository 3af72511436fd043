"""An OpenTelemetry collector for tests: it takes OTLP over HTTP, and remembers what came."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import create_server
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["CollectedSpan", "Collector", "collecting", "silent"]


@dataclass(frozen=True)
class CollectedSpan:
    """One span as it came."""

    name: str
    kind: int
    trace: str
    ident: str
    parent: str  # "" for the first of its trace
    began: int  # ns
    ended: int
    error: str | None  # the description of its status; None: no error
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What came so far. `status` is what it answers."""

    port: int = 0
    status: int = 200
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)  # path, headers, body

    @property
    def address(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[CollectedSpan]:
        """Every span that came, in the order of their beginning."""
        found = []
        for _, _, body in list(self.requests):
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _values(group.resource.attributes)
                for scope in group.scope_spans:
                    found += [_span(one, resource) for one in scope.spans]
        return sorted(found, key=lambda span: span.began)

    def requests_traced(self) -> list[CollectedSpan]:
        """Those spans of them that are a request's."""
        return [span for span in self.spans() if span.kind == SERVER]


SERVER = 2  # SpanKind, in OTLP
ERROR = 2  # StatusCode


def _span(one: Any, resource: dict[str, Any]) -> CollectedSpan:
    error = one.status.message if one.status.code == ERROR else None
    return CollectedSpan(
        one.name, one.kind, one.trace_id.hex(), one.span_id.hex(), one.parent_span_id.hex(),
        one.start_time_unix_nano, one.end_time_unix_nano, error, _values(one.attributes), resource,
    )  # fmt: skip


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, for the length of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.status == 200:
                collector.requests.append((self.path, dict(self.headers), body))
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing of requests: standard error is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    """The address of a collector that accepts each connection and never answers."""
    with closing(create_server(("127.0.0.1", 0), backlog=1000)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
