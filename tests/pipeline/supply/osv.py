"""OSV, as it answers pip-audit; it is GitHub's and Google's edge of the world, so it is played."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["osv_variables", "played_osv"]

ADVISORY = {
    "id": "GHSA-jjg7-2v4v-x38h",
    "aliases": ["CVE-2024-3651"],
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "idna"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.7"}]}],
        }
    ],
}


@contextlib.contextmanager
def played_osv() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """A service that knows something of idna 3.6: its port, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(query)
            known = query == {"package": {"name": "idna", "ecosystem": "PyPI"}, "version": "3.6"}
            body = json.dumps({"vulns": [ADVISORY]} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """`asked` has it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def osv_variables(port: int) -> dict[str, str]:
    """What makes pip-audit ask the service on PORT."""
    return {
        "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
        "PIP_AUDIT_OSV_URL": f"http://127.0.0.1:{port}/v1/query",
        "NO_PROXY": "127.0.0.1",
    }
