"""The service as a real process, for what only a process shows: signals, sockets, exit codes, what it prints."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from pipeline.system.ports import free_port

__all__ = ["Service", "free_port", "serve", "start", "wait_until"]

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SECONDS = 30  # patience, for a busy machine; shorter than the drain of a test that says it waits for none


@dataclass
class Service:
    """A running `python -m backend`. `path` is the Unix socket it listens on, or "" for its port."""

    process: subprocess.Popen[bytes]
    output: Path
    port: int
    metrics_port: int
    path: str

    def client(self, **options: Any) -> httpx2.Client:
        """A keep-alive caller, without TLS: reading the authorities takes 20 ms."""
        if self.path:
            transport = httpx2.HTTPTransport(uds=self.path, verify=False)
            return httpx2.Client(transport=transport, base_url="http://service", **options)
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", verify=False, **options)

    def connect(self) -> socket.socket:
        """A raw connection. Raises OSError where nothing listens."""
        if not self.path:
            return socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_SECONDS)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE_SECONDS)
        try:
            client.connect(self.path)
        except OSError:
            client.close()
            raise
        return client

    def accepts(self) -> bool:
        """Whether something listens."""
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by name and labels."""
        text = httpx2.get(f"http://127.0.0.1:{self.metrics_port}/metrics", verify=False).text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def printed(self) -> str:
        """Everything that it wrote to stdout and stderr so far."""
        return self.output.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log events with this name."""
        lines = [json.loads(line) for line in self.printed().splitlines()]
        return [line for line in lines if line["event"] == name]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its first process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code."""
        return self.process.wait(DEADLINE_SECONDS)


def start(environ: Mapping[str, str], folder: Path, *, on_socket: bool = True, printing: int | None = None) -> Service:
    """Start the service with ENVIRON and nothing else of ours; do not wait for it.

    What it prints goes to the descriptor `printing`, by default that of a file.
    """
    port, metrics_port, path = free_port(), free_port(), str(folder / "service.sock")
    given = {
        "PATH": os.environ["PATH"],
        "BACKEND_HOST": path if on_socket else "127.0.0.1",
        "BACKEND_PORT": str(port),
        "METRICS_PORT": str(metrics_port),
        **environ,
    }
    output = folder / "output.log"
    with output.open("wb") as file:
        command = [sys.executable, "-m", "backend"]
        process = subprocess.Popen(
            command, env=given, cwd=ROOT, stdout=printing or file, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Service(process, output, port, int(given["METRICS_PORT"]), path if on_socket else "")


@contextmanager
def serve(
    environ: Mapping[str, str], folder: Path, *, on_socket: bool = True, printing: int | None = None
) -> Iterator[Service]:
    """The service, answering. It and its workers are gone after the block."""
    service = start(environ, folder, on_socket=on_socket, printing=printing)
    try:
        wait_until(lambda: _answers(service), f"the service does not answer: {service.printed()}")
        yield service
    finally:
        try:
            os.killpg(service.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            assert service.process.poll() is not None
        service.process.wait()


def wait_until(true: Callable[[], object], otherwise: str) -> None:
    """Wait for a condition of another process. Raises AssertionError at the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def _answers(service: Service) -> bool:
    assert service.process.poll() is None, service.printed()
    if not service.accepts():  # asked first: httpcore2 leaks the Unix socket of a connection that was refused
        return False
    with service.client(timeout=DEADLINE_SECONDS) as client:
        return client.get("/health").status_code == 200
