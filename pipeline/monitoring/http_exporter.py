"""The HTTP half of an exporter, which Prometheus scrapes. It imports the standard library alone: see `exposition`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["PORT", "HttpExporter", "serve"]

PORT = 9090  # as that of the service's own metrics
CONTENT = "text/plain; version=0.0.4; charset=utf-8"


class HttpExporter(ThreadingHTTPServer):
    """Answers any path with what `scrape` returns, at `port` of all addresses; what it raises is a 500."""

    def __init__(self, scrape: Callable[[], str], port: int = PORT) -> None:
        self.scrape = scrape
        super().__init__(("0.0.0.0", port), _Handler)  # noqa: S104 - of its container


class _Handler(BaseHTTPRequestHandler):
    server: HttpExporter

    def do_GET(self) -> None:
        try:
            status, text = 200, self.server.scrape()
        except Exception as error:  # noqa: BLE001 - Prometheus and the container's log say it
            status, text = 500, f"{type(error).__name__}: {error}\n"
            self.log_error("%s", text.strip())
        self.send_response(status)
        self.send_header("Content-Type", CONTENT)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_request(self, *_: object) -> None:
        """Say nothing: it is asked every few seconds."""


def serve(scrape: Callable[[], str], port: int = PORT) -> None:
    """Answer with what `scrape` returns until SIGTERM."""
    # Without a handler, process 1 of a container takes no SIGTERM, and its engine waits ten seconds for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    HttpExporter(scrape, port).serve_forever()
