"""`nox -s dev`: the stores that it must keep away from, and the page that it serves."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from pipeline.commands.dev import environment_of, page
from pipeline.engines.embedded import PostgresServer, ValkeyServer
from pipeline.errors import SlipwayError
from pipeline.system.ports import free_port

POSTGRES = PostgresServer(host="/tmp/throwaway", port=5432, user="postgres", password="of-the-throwaway-one")
VALKEY = ValkeyServer(socket="/tmp/throwaway.sock")


def test_no_other_database_can_be_reached() -> None:
    """An address in the shell or in `.env` would win over host and password, and `dev` migrates what it finds."""
    real = {"POSTGRES_HOST": "production", "POSTGRES_DB": "board", "REDIS_HOST": "production"}
    urls = {"DATABASE_URL": "postgresql://production/board", "REDIS_URL": "rediss://production:6379/0"}
    files = {f"{name}_FILE": "/run/x" for name in ("DATABASE_URL", "REDIS_URL", "POSTGRES_PASSWORD", "REDIS_PASSWORD")}
    kept = {"PATH": "/usr/bin", "SERVICE_TOKEN_FILE": "/run/token", "BACKEND_PORT": "8001"}
    environment = environment_of({**real, **urls, **files, "REDIS_PASSWORD": "x", **kept}, POSTGRES, VALKEY)
    assert kept.items() <= environment.items()
    assert environment.keys() - kept.keys() == {
        "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "REDIS_HOST",
        "ENVIRONMENT", "LOG_FORMAT", "DRAIN_SECONDS", "RELEASE",
    }  # fmt: skip
    assert (environment["POSTGRES_HOST"], environment["REDIS_HOST"]) == (POSTGRES.host, VALKEY.socket)


class Service(http.server.BaseHTTPRequestHandler):
    """Answers each GET with its path."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def project(root: Path, caddyfile: str) -> Path:
    """Make a project with one page and this edge below `root`."""
    for name, text in {"frontend/index.html": "first", "edge/Caddyfile": caddyfile}.items():
        path = root / "docker" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return root


CADDYFILE = (Path(__file__).parents[3] / "docker/edge/Caddyfile").read_text()


def test_the_page_is_served_from_the_files_as_they_are(tmp_path: Path, service: int) -> None:
    root, port = project(tmp_path / "a project", CADDYFILE), free_port()
    with page(root, str(port), str(service)), httpx2.Client(base_url=f"http://127.0.0.1:{port}") as browser:
        assert browser.get("/").text == "first"
        (root / "docker/frontend/index.html").write_text("second, longer")
        assert browser.get("/").text == "second, longer"
        assert browser.get("/api/v1/x?y=1").text == "/api/v1/x?y=1"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/")


def test_an_edge_that_cannot_start_is_named(tmp_path: Path) -> None:
    root = project(tmp_path, CADDYFILE + "nonsense {\n")
    with (
        pytest.raises(SlipwayError, match=r"Caddy does not accept \S*Caddyfile: syntax error: .*Caddyfile:\d+"),
        page(root, "3999", "1"),
    ):
        raise AssertionError("served")
