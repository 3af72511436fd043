"""Caddy as the edge: a fixed slot for each replica and a spare one, whose health Caddy's active checks decide.

A rolling update never reloads Caddy, because a reload closes clients' idle connections and WebSockets. Slots are Unix
sockets at fixed paths: a replica enters when the slot's path is linked to its socket, and leaves by draining.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from pipeline.errors import SlipwayError
from pipeline.system.files import write_whole
from pipeline.system.waiting import attempts
from pipeline.targets.common.edge import (
    HEALTH_FAILS,
    HEALTH_INTERVAL_SECONDS,
    HEALTH_URI,
    REPLICA_HEADER,
    SYNTHETIC,
    settle,
    wait_admitted,
)
from pipeline.targets.local.layout import Layout

__all__ = ["Edge", "edge_config"]

FEWEST_SLOTS = 6  # so that a change of the number of replicas rarely reloads it
# The page loads only its own files, and sends requests only to its own origin.
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def edge_config(run: Path, slots: int, port: int, addresses: list[str], page: Path) -> dict[str, Any]:
    """Return Caddy's configuration: paths of files below `page` are answered with the file, all others by the replicas.

    It hides no failure: it neither retries nor reuses connections to replicas. docker/edge/Caddyfile makes the same
    promises.
    """
    path = "{http.request.uri.path}"
    files = {
        "match": [{"method": ["GET", "HEAD"], "file": {"root": str(page), "try_files": [path, f"{path}/index.html"]}}],
        "handle": [
            {"handler": "headers", "response": {"set": {name: [value] for name, value in PAGE_HEADERS.items()}}},
            {"handler": "encode", "encodings": {"gzip": {}}, "prefer": ["gzip"]},
            {"handler": "file_server", "root": str(page)},
        ],
        "terminal": True,
    }
    proxy = {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"unix/{slot_path(run, slot)}"} for slot in range(slots)],
        "load_balancing": {"selection_policy": {"policy": "round_robin"}, "retries": 0},
        "health_checks": {
            "active": {
                "uri": HEALTH_URI,
                "interval": f"{HEALTH_INTERVAL_SECONDS * 1000:.0f}ms",
                "timeout": "1s",
                "fails": HEALTH_FAILS,
                "passes": 1,
            }
        },
        # No connection is reused: Go resends a GET (or any request with an `Idempotency-Key`) whose connection died.
        "transport": {"protocol": "http", "keep_alive": {"enabled": False}, "dial_timeout": "1s"},
        "stream_close_delay": "30s",
    }
    # Only in answer to a deploy, which checks which replicas the edge has let in.
    trace = {
        "match": [{"header": {SYNTHETIC: ["true"]}}],
        "handle": [
            {
                "handler": "headers",
                "response": {"deferred": True, "set": {REPLICA_HEADER: ["{http.reverse_proxy.upstream.address}"]}},
            }
        ],
    }
    server = {
        "listen": [f"{address}:{port}" for address in addresses],
        "automatic_https": {"disable": True},
        "routes": [files, trace, {"handle": [proxy]}],
    }
    return {
        "admin": {"listen": f"unix/{run / 'caddy.sock'}|0600", "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "WARN", "encoder": {"format": "json"}}}},
        "apps": {"http": {"grace_period": "10s", "servers": {"edge": server}}},
    }


def slot_path(run: Path, slot: int) -> Path:
    """Return the path at which the edge expects the socket of the replica in `slot`."""
    return run / f"edge-{slot}"


def _read_page(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def loopback_addresses() -> list[str]:
    """Return 127.0.0.1, and [::1] where this machine has it, since `localhost` may mean either."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return ["127.0.0.1", "[::1]"]
    return ["127.0.0.1"]


class Edge:
    """The running edge of a layout, on `port`."""

    def __init__(self, layout: Layout, port: int) -> None:
        self.layout, self.port = layout, port
        self._file = layout.home / "edge.json"

    def write_config(self, slots: int) -> bool:
        """Write the configuration for at least `slots` replicas; return whether it differs from the previous one."""
        slots = max(slots, FEWEST_SLOTS)
        config = edge_config(self.layout.run, slots, self.port, loopback_addresses(), self.layout.page)
        text = json.dumps(config, indent=1)
        if self._file.exists() and self._file.read_text(encoding="utf-8") == text:
            return False
        write_whole(self._file, text)
        return True

    def shows(self, page: Path) -> bool:
        """Return whether the edge serves exactly the files of `page`."""
        return _read_page(self.layout.page) == _read_page(page)

    def place(self, page: Path) -> None:
        """Serve the files of `page` from the next request on. Unchanged files keep their time, and so their ETag."""
        old, new = _read_page(self.layout.page), _read_page(page)
        for name in old.keys() - new.keys():
            (self.layout.page / name).unlink()
        for name, content in new.items():
            if content != old.get(name):
                path = self.layout.page / name
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                part.write_bytes(content)
                part.replace(path)

    def configured_port(self) -> int | None:
        """Return the port in the configuration written last, None where there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            listen = json.loads(self._file.read_text())["apps"]["http"]["servers"]["edge"]["listen"][0]
            return int(listen.rsplit(":", 1)[1])
        return None

    def reload(self) -> None:
        """Load the written configuration (with another port or number of slots) into the running Caddy."""
        transport = httpx2.HTTPTransport(uds=str(self.layout.run / "caddy.sock"), verify=False)  # no TLS there
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=30) as admin:
            answer = admin.post("/load", content=self._file.read_bytes(), headers={"Content-Type": "application/json"})
        if answer.status_code != httpx2.codes.OK:
            raise SlipwayError(f"the edge rejected its configuration: {answer.text.strip()}")
        settle(time.monotonic())

    def wait_up(self, seconds: float = 10) -> None:
        """Wait until the edge accepts connections."""
        for _ in attempts(seconds, every=0.02):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
        raise SlipwayError(f"the edge does not listen on port {self.port}; see {self.layout.log('edge')}")

    def link(self, slot: int, target: Path) -> None:
        """Let the replica that listens at `target` into `slot`."""
        path = slot_path(self.layout.run, slot)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        part.replace(path)

    def linked(self, slot: int, target: Path) -> bool:
        """Return whether `slot` leads to `target`."""
        path = slot_path(self.layout.run, slot)
        return path.is_symlink() and path.readlink() == target

    def unlink(self, slot: int) -> None:
        """Empty `slot`."""
        slot_path(self.layout.run, slot).unlink(missing_ok=True)

    def wait_admitted(self, slot: int, watch: Callable[[], None]) -> None:
        """Wait until the replica in `slot` answers requests through the edge."""
        wait_admitted(
            f"http://127.0.0.1:{self.port}",
            slot_path(self.layout.run, slot).name,
            watch,
            log=str(self.layout.log("edge")),
        )
