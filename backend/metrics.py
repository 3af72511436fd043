"""Prometheus metrics of one process, or summed over the workers of one replica."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import prometheus_client as prometheus
from prometheus_client import multiprocess
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.health.schemas import CheckName, Readiness

__all__ = ["Metrics", "metrics_app"]

# Seconds. The scale of a web service: a cache hit at 1 ms, a slow page at 1 s, the timeout at 10 s.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
TRAFFIC = ("user", "synthetic")
FAILURES = (500, 503, 504)  # what any route may answer, whatever it does: a bug, no database, too late
CHECKS = [name for name in CheckName if name is not CheckName.DRAINING]  # which has a gauge of its own
READS, READ_SECONDS = 20, 0.01
Mode = Literal["livesum", "livemostrecent"]
CLIENTS = ("address", "account", "service", "login")


@dataclass
class Metrics:
    """The instruments. Label values are bounded: route templates, never paths; a method of `METHODS`, or OTHER.

    docs/metrics.md lists them all.
    """

    release: str
    registry: prometheus.CollectorRegistry = field(default_factory=prometheus.CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self.requests = prometheus.Counter(
            "http_requests",
            "Requests answered.",
            ["method", "route", "status", "release", "traffic"],
            registry=registry,
        )
        self.durations = prometheus.Histogram(
            "http_request_duration_seconds",
            "Seconds until the answer was sent.",
            ["method", "route", "release", "traffic"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = self._gauge("http_requests_in_flight", "Requests that are being answered.")
        self.connections = self._gauge("database_connections", "Connections to PostgreSQL that are open.")
        self.connections_used = self._gauge("database_connections_in_use", "Connections that a request holds.")
        self.connections_limit = self._gauge("database_connections_limit", "Connections that may be open.")
        self.pool_timeouts = self._counter("database_pool_timeouts", "Requests that got no connection in time.")
        self.pool_waited = self._counter("database_pool_waited_seconds", "Seconds that requests waited for their turn.")
        self.redis_errors = self._counter("redis_errors", "Commands that Redis did not answer.")
        self.redis_bypassed = self._counter("redis_bypassed", "Commands not sent, as Redis failed a moment ago.")
        self.cache = self._counter("cache_reads", "Reads of the cache.", outcome=("hit", "miss"))
        self.limited = self._counter(
            "http_requests_limited", "Requests refused as too many, by kind of client.", client=CLIENTS
        )
        self.limits_unshared = self._counter(
            "limits_unshared", "Times that Redis did not share the counts of requests."
        )
        self.worker_starts = self._counter("backend_worker_starts", "Processes that began to serve, replaced ones too.")
        # Of whichever worker was asked last: a scrape asks one of them anew. Not set here, or a worker that has yet to
        # start would say that nobody is ready.
        self.draining = self._gauge("backend_draining", "1 while it drains.", mode="livemostrecent")
        self.ready = self._gauge("backend_ready", "1 if it is ready, as /ready would say.", mode="livemostrecent")
        self.checks = prometheus.Gauge(
            "backend_check_ok",
            "1 if this check of readiness succeeds.",
            ["check"],
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        for name in CHECKS:
            self.checks.labels(name)
        build = prometheus.Gauge(
            "backend_build_info", "1, labelled with what runs.", ["release"], registry=registry, multiprocess_mode="max"
        )
        build.labels(self.release).set(1)
        self._children: dict[tuple[str, str, int, bool], tuple[prometheus.Counter, prometheus.Histogram]] = {}

    def expect(self, routes: Iterable[BaseRoute]) -> None:
        """Begin to count the failures of each of `routes`, at 0.

        A series that begins with its first failure hides it from `rate()`, which sees no increase, and each replica of
        a new release has series of its own: where two replicas have five routes, whoever watches a deploy would miss
        ten errors. Of what succeeds, one may be missed, and the buckets of a histogram begin together with its count.
        What is not in OpenAPI (the page of the documentation) is left out.
        """
        for route in routes:
            if isinstance(route, Route) and route.include_in_schema:
                for method in METHODS & (route.methods or set()):
                    for status in FAILURES:
                        for traffic in TRAFFIC:
                            self.requests.labels(method, route.path, str(status), self.release, traffic)

    def observe(self, method: str, route: str, status: int, seconds: float, *, synthetic: bool) -> None:
        """Count one answered request, which took `seconds`. `synthetic`: of the proof, and not of a user."""
        # Labelled children are kept, because `labels()` costs 8 µs more each time.
        key = (method, route, status, synthetic)
        children = self._children.get(key)
        if children is None:
            shown, traffic = method if method in METHODS else "OTHER", TRAFFIC[synthetic]
            children = (
                self.requests.labels(shown, route, str(status), self.release, traffic),
                self.durations.labels(shown, route, self.release, traffic),
            )
            if method in METHODS:  # a client may invent any number of methods
                self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def show(self, readiness: Readiness) -> None:
        """Set the gauges of readiness."""
        self.ready.set(readiness.ready)
        self.draining.set(readiness.checks[CheckName.DRAINING].state != "ok")
        for name in CHECKS:
            self.checks.labels(name).set(readiness.checks[name].state == "ok")

    def _counter(self, name: str, text: str, **labels: Iterable[str]) -> prometheus.Counter:
        """Return a counter that is there from the start, with each value of its label, if it has one."""
        counter = prometheus.Counter(name, text, [*labels], registry=self.registry)
        for values in labels.values():
            for value in values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, *, mode: Mode = "livesum") -> prometheus.Gauge:
        # The supervisor removes the file of live gauges of a worker that ended, so that the dead are not summed.
        return prometheus.Gauge(name, text, registry=self.registry, multiprocess_mode=mode)


def _exported(metrics: Metrics) -> prometheus.CollectorRegistry:
    """Return `metrics` with the process's own figures, or the sum of what all workers wrote into their files."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        prometheus.ProcessCollector(registry=metrics.registry)
        prometheus.PlatformCollector(registry=metrics.registry)
        prometheus.GCCollector(registry=metrics.registry)
        return metrics.registry
    summed = prometheus.CollectorRegistry()
    multiprocess.MultiProcessCollector(summed)  # type: ignore[no-untyped-call]
    return summed


async def _page(registry: prometheus.CollectorRegistry) -> bytes:
    """Return the metrics of `registry`, also where a worker that starts has made a file and not yet filled it."""
    for _ in range(READS - 1):
        with contextlib.suppress(struct.error):
            return prometheus.generate_latest(registry)
        await asyncio.sleep(READ_SECONDS)
    return prometheus.generate_latest(registry)


def metrics_app(metrics: Metrics, check: Callable[[], Awaitable[None]]) -> ASGIApp:
    """Return the ASGI app of METRICS_PORT: `GET /metrics`, after a `check` of readiness, and 404 for anything else."""
    prometheus.disable_created_metrics()  # type: ignore[no-untyped-call] # a `_created` series beside each counter doubles the page
    registry = _exported(metrics)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        found = scope["type"] == "http" and scope["path"] == "/metrics"
        if found:
            await check()
        body = await _page(registry) if found else b"Only /metrics is served here.\n"
        kind = prometheus.CONTENT_TYPE_LATEST if found else "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
