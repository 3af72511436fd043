"""Caddy as the edge: one fixed slot for each replica and one to spare, found healthy or not by active checks.

A rolling update never reloads Caddy: a reload closes idle connections and WebSockets of clients. Slots are Unix
sockets at fixed paths; a replica enters when the slot's path is linked to its socket, and leaves by draining.
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
from pipeline.files import write_whole
from pipeline.targets.local.layout import Layout

__all__ = ["Edge", "edge_config"]

# The edge asks what only the replica can know. A database that is away is no reason to answer for the service:
# its own 503 says what is wrong and when to come back.
HEALTH_URI = "/ready?exclude=database&exclude=schema&exclude=redis"
HEALTH_INTERVAL_SECONDS = 0.2
HEALTH_FAILS = 2  # one slow answer on a busy machine takes nobody out
# Until that many checks a slot counts as healthy, though nobody is in it: after a start or a reload of Caddy, and
# after the end of a replica that did not drain.
SETTLE_SECONDS = HEALTH_INTERVAL_SECONDS * (HEALTH_FAILS + 1)
FEWEST_SLOTS = 6  # so that another number of replicas need not reload it
ADMISSION_SECONDS = 10
REPLICA_HEADER = "Slipway-Replica"


def edge_config(run: Path, slots: int, port: int, addresses: list[str]) -> dict[str, Any]:
    """Caddy's configuration. It hides no failure: no retries, and no reuse of connections to replicas, because Go
    resends a GET (or anything with an `Idempotency-Key`) whose reused connection died.
    """
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
        "transport": {"protocol": "http", "keep_alive": {"enabled": False}, "dial_timeout": "1s"},
        "stream_close_delay": "30s",
    }
    # Only where a deploy asks for it, to see which replica the edge has let in.
    trace = {
        "match": [{"header": {"Slipway-Synthetic": ["true"]}}],
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
        "routes": [trace, {"handle": [proxy]}],
    }
    return {
        "admin": {"listen": f"unix/{run / 'caddy.sock'}|0600", "config": {"persist": False}},
        "logging": {"logs": {"default": {"level": "WARN", "encoder": {"format": "json"}}}},
        "apps": {"http": {"grace_period": "10s", "servers": {"edge": server}}},
    }


def slot_path(run: Path, slot: int) -> Path:
    """The path at which the edge looks for the replica of SLOT."""
    return run / f"edge-{slot}"


def loopback_addresses() -> list[str]:
    """127.0.0.1, and [::1] where this machine has it: `localhost` may mean either."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return ["127.0.0.1", "[::1]"]
    return ["127.0.0.1"]


class Edge:
    """The running edge of a layout, on PORT."""

    def __init__(self, layout: Layout, port: int) -> None:
        self.layout, self.port = layout, port
        self._file = layout.home / "edge.json"

    def write_config(self, slots: int) -> bool:
        """Write the configuration for SLOTS replicas or more; whether it differs from what was there."""
        text = json.dumps(
            edge_config(self.layout.run, max(slots, FEWEST_SLOTS), self.port, loopback_addresses()), indent=1
        )
        if self._file.exists() and self._file.read_text(encoding="utf-8") == text:
            return False
        write_whole(self._file, text)
        return True

    def configured_port(self) -> int | None:
        """The port of the configuration that was written last."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            listen = json.loads(self._file.read_text())["apps"]["http"]["servers"]["edge"]["listen"][0]
            return int(listen.rsplit(":", 1)[1])
        return None

    def reload(self) -> None:
        """Give the running Caddy the written configuration (another port or another number of slots)."""
        transport = httpx2.HTTPTransport(uds=str(self.layout.run / "caddy.sock"))
        with httpx2.Client(transport=transport, base_url="http://localhost", timeout=30) as admin:
            answer = admin.post("/load", content=self._file.read_bytes(), headers={"Content-Type": "application/json"})
        if answer.status_code != httpx2.codes.OK:
            raise SlipwayError(f"the edge refused its configuration: {answer.text.strip()}")
        self.settle(time.monotonic())

    def settle(self, since: float) -> None:
        """Wait until the edge must have noticed what changed at SINCE (monotonic seconds)."""
        time.sleep(max(0.0, since + SETTLE_SECONDS - time.monotonic()))

    def wait_up(self, seconds: float = 10) -> None:
        """Wait until the edge accepts connections."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise SlipwayError(f"the edge does not listen on port {self.port}; see {self.layout.log('edge')}")
            time.sleep(0.02)

    def link(self, slot: int, target: Path) -> None:
        """Let the replica that listens at TARGET into SLOT."""
        path = slot_path(self.layout.run, slot)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        part.symlink_to(target)
        part.replace(path)

    def linked(self, slot: int, target: Path) -> bool:
        """Whether SLOT leads to TARGET."""
        path = slot_path(self.layout.run, slot)
        return path.is_symlink() and path.readlink() == target

    def unlink(self, slot: int) -> None:
        """Leave SLOT empty."""
        slot_path(self.layout.run, slot).unlink(missing_ok=True)

    def wait_admitted(self, slot: int, watch: Callable[[], None]) -> None:
        """Wait until requests through the edge are answered by the replica in SLOT."""
        deadline = time.monotonic() + ADMISSION_SECONDS
        wanted = slot_path(self.layout.run, slot).name
        with httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as client:
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    answer = client.get("/health", headers={"Slipway-Synthetic": "true"})
                    if answer.headers.get(REPLICA_HEADER, "").endswith(wanted):
                        return
                if time.monotonic() > deadline:
                    raise SlipwayError(
                        f"the edge sent nothing to the new replica in {ADMISSION_SECONDS} s: its"
                        f" {HEALTH_URI} is not 200 for the edge; see {self.layout.log('edge')}"
                    )
                watch()
                time.sleep(0.02)
