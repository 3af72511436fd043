"""Whether the edge has let a replica in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.targets.admission import REPLICA_HEADER, wait_admitted


class _Edge(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header(REPLICA_HEADER, "unix//run/edge-1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def edge() -> Iterator[str]:
    """The address of an edge that always answers from slot 1."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Edge) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class TestWaitAdmitted:
    def test_sees_the_replica_that_the_edge_names(self, edge: str) -> None:
        """One answer of the wanted replica is enough."""
        wait_admitted(edge, "edge-1", lambda: None, log="the log")

    def test_goes_through_no_proxy(self, edge: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Behind a company's proxy a deploy failed, and so did its rollback: the proxy was asked for 127.0.0.1."""
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        wait_admitted(edge, "edge-1", lambda: None, log="the log")
