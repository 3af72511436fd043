"""How the service runs: listeners, uvicorn, signals, an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import math
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from backend.app import create_app
from backend.database import check_address
from backend.drain import Drain
from backend.health.service import HealthService
from backend.logs import configure_logging
from backend.metrics import Metrics, metrics_app
from backend.settings import Settings
from backend.tracing import begin_tracing

__all__ = ["CannotListen", "Listeners", "listen", "run", "uvicorn_config"]

BACKLOG = 2048
LEAVE_NOW = signal.SIGQUIT  # sent by the supervisor of workers on Ctrl-C in development


class CannotListen(Exception):
    """An address that cannot be bound. The message is one line that names it."""


@dataclass(frozen=True)
class Listeners:
    """The bound sockets of the service and of its metrics."""

    service: tuple[socket.socket, ...]
    metrics: socket.socket

    def close(self) -> None:
        """Close all in this process (a forked worker has its own)."""
        for one in (*self.service, self.metrics):
            one.close()


def listen(settings: Settings) -> Listeners:
    """Bind the addresses of `settings`. Raise `CannotListen` where one cannot be bound.

    When the service is on a Unix socket, its metrics stay on this machine.
    """
    if settings.backend_host.startswith("/"):
        service = _bind_path(Path(settings.backend_host), "BACKEND_HOST")
        metrics_host = "127.0.0.1"
    else:
        service = _bind(settings.backend_host, settings.backend_port, "BACKEND_PORT")
        metrics_host = settings.backend_host
    besides = []
    if settings.backend_socket:
        path = Path(settings.backend_socket)
        besides = [_bind_path(path, "BACKEND_SOCKET")]
        path.chmod(0o666)  # its folder decides who may connect: the edge may be another user
    return Listeners((service, *besides), _bind(metrics_host, settings.metrics_port, "METRICS_PORT"))


def run(settings: Settings, listeners: Listeners, *, lifeline: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain and stop.

    For DRAIN_SECONDS `/ready` is 503 and no connection is kept alive, yet new ones are accepted; then the requests in
    flight are finished. A second signal ends the process at once.

    A worker has a `lifeline`, a descriptor that its supervisor holds: when the supervisor ends, so does the worker.
    Raise `SettingsError` where no connection to the database will ever be possible.
    """
    configure_logging(settings)
    drain, metrics, tracing = Drain(), Metrics(settings.release), begin_tracing(settings)
    metrics.worker_starts.inc()
    app = create_app(settings, drain=drain, metrics=metrics, tracing=tracing)
    service = _Server(uvicorn_config(app, settings))
    exported = metrics_app(metrics, partial(_check, app, metrics))
    exporter = _Server(uvicorn.Config(exported, lifespan="off", log_config=None, access_log=False))
    loop_factory = service.config.get_loop_factory()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(
                _serve(
                    settings=settings,
                    listeners=listeners,
                    drain=drain,
                    service=service,
                    exporter=exporter,
                    lifeline=lifeline,
                )
            )
    finally:
        if tracing:
            tracing.close()


def uvicorn_config(app: Callable[..., object], settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for `app`."""
    # Its own logs come through ours; its Server header would tell an attacker its version.
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `backend.forwarded` reads them
        timeout_keep_alive=75,  # longer than the edge keeps an idle connection, so that the edge closes it first
        # What began last in the drain is answered by then, with a 504 if need be; what is still sent is cut.
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_seconds) + 1,
        backlog=BACKLOG,
    )


class _Server(uvicorn.Server):
    """A uvicorn server whose signals are handled here."""

    # uvicorn's own handler ends a process that drained well with status -15.
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    *, settings: Settings, listeners: Listeners, drain: Drain, service: _Server, exporter: _Server, lifeline: int | None
) -> None:
    _leave_on_signals(settings, drain, service, lifeline)
    await check_address(settings)
    # What was allocated until now lives as long as the process: garbage collection need not look at it, now or later.
    # (Imports leave 500 objects of garbage, and to find them takes 30 ms.)
    # Measured: p99 falls by a factor of 1.2 to 3.6.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()  # `backend.__main__` has disabled it, so that this is the first time that anybody looks
    metrics = asyncio.create_task(exporter.serve(sockets=[listeners.metrics]))
    try:
        await service.serve(sockets=[*listeners.service])
    finally:
        exporter.should_exit = True
        await metrics


async def _check(app: FastAPI, metrics: Metrics) -> None:
    """Show in `metrics` whether `app` is ready now, whoever else asks it; before it has started, it is not."""
    health: HealthService | None = getattr(app.state, "health", None)
    if health is None:
        return
    try:
        metrics.show(await health.readiness())
    except Exception:  # noqa: BLE001 - /ready is a 500 then; the other metrics are still wanted
        metrics.ready.set(0)
        structlog.get_logger("server").exception("readiness cannot be checked")


def _leave_on_signals(settings: Settings, drain: Drain, service: _Server, lifeline: int | None) -> None:
    log = structlog.get_logger("server")
    loop = asyncio.get_running_loop()

    def stop() -> None:
        service.should_exit = True

    def leave(number: signal.Signals, seconds: float) -> None:
        if drain.active:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)  # for SIGINT, Python's own handler would print a traceback
            os.kill(os.getpid(), number)
            return
        drain.active = True
        log.info("draining", signal=number.name, seconds=seconds)
        drain.end_when_calm(seconds, stop)

    loop.add_signal_handler(signal.SIGTERM, leave, signal.SIGTERM, settings.drain_seconds)
    if lifeline is None:
        # A developer's Ctrl-C should not take five seconds.
        seconds = 0.0 if settings.environment == "development" else settings.drain_seconds
        loop.add_signal_handler(signal.SIGINT, leave, signal.SIGINT, seconds)
        return

    def orphaned() -> None:
        loop.remove_reader(lifeline)
        if not drain.active:
            leave(signal.SIGTERM, settings.drain_seconds)

    loop.add_signal_handler(LEAVE_NOW, leave, LEAVE_NOW, 0.0)
    loop.add_reader(lifeline, orphaned)


def _bind(host: str, port: int, name: str) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "another process is listening there" if taken else (error.strerror or "no such address")
        raise CannotListen(
            f"cannot listen on {host} port {port}: {reason}; stop it, or set {name} to another port"
        ) from error
    listener.settimeout(0)
    return listener


def _bind_path(path: Path, name: str) -> socket.socket:
    """Listen on the Unix socket `path`, replacing one that a killed process left behind."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "another process is listening there")
            path.unlink()
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on the Unix socket {path}: {error.strerror or error}; stop what uses it,"
            f" or set {name} to another path (107 bytes at most, in a folder that exists)"
        ) from error
    listener.settimeout(0)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
