"""Prometheus metrics of one process, or summed over the workers of one replica."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import prometheus_client as prometheus
from prometheus_client import multiprocess
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Metrics", "metrics_app"]

# Seconds. The scale of a web service: a cache hit at 1 ms, a slow page at 1 s, the timeout at 10 s.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass
class Metrics:
    """The instruments. Label values are bounded: route templates, never paths; a method of `METHODS`, or OTHER."""

    release: str
    registry: prometheus.CollectorRegistry = field(default_factory=prometheus.CollectorRegistry)

    def __post_init__(self) -> None:
        registry = self.registry
        self.requests = prometheus.Counter(
            "http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.durations = prometheus.Histogram(
            "http_request_duration_seconds",
            "Seconds until the answer was sent.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = self._gauge("http_requests_in_flight", "Requests that are being answered.")
        self.connections = self._gauge("database_connections", "Connections to PostgreSQL that are open.")
        self.connections_used = self._gauge("database_connections_in_use", "Connections that a request holds.")
        self.connections_limit = self._gauge("database_connections_limit", "Connections that may be open.")
        self.pool_timeouts = prometheus.Counter(
            "database_pool_timeouts", "Requests that got no connection in time.", registry=registry
        )
        self.redis_errors = prometheus.Counter("redis_errors", "Commands that Redis did not answer.", registry=registry)
        self.redis_bypassed = prometheus.Counter(
            "redis_bypassed", "Commands not sent, as Redis failed a moment ago.", registry=registry
        )
        self.cache = prometheus.Counter("cache_reads", "Reads of the cache.", ["outcome"], registry=registry)
        self.limited = prometheus.Counter(
            "http_requests_limited", "Requests refused as too many, by kind of client.", ["client"], registry=registry
        )
        self.limits_unshared = prometheus.Counter(
            "limits_unshared", "Times that Redis did not share the counts of requests.", registry=registry
        )
        build = prometheus.Gauge(
            "backend_build_info", "1, labelled with what runs.", ["release"], registry=registry, multiprocess_mode="max"
        )
        build.labels(self.release).set(1)
        self._children: dict[tuple[str, str, int], tuple[prometheus.Counter, prometheus.Histogram]] = {}

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request, which took `seconds`."""
        # Labelled children are kept, because `labels()` costs 8 µs more each time.
        key = (method, route, status)
        children = self._children.get(key)
        if children is None:
            shown = method if method in METHODS else "OTHER"
            children = self.requests.labels(shown, route, str(status)), self.durations.labels(shown, route)
            if method in METHODS:  # a client may invent any number of methods
                self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def _gauge(self, name: str, text: str) -> prometheus.Gauge:
        return prometheus.Gauge(name, text, registry=self.registry, multiprocess_mode="livesum")


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


def metrics_app(metrics: Metrics) -> ASGIApp:
    """Return the ASGI app of METRICS_PORT: `GET /metrics`, and 404 for anything else."""
    prometheus.disable_created_metrics()  # type: ignore[no-untyped-call] # a `_created` series beside each counter doubles the page
    registry = _exported(metrics)

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        found = scope["type"] == "http" and scope["path"] == "/metrics"
        body = prometheus.generate_latest(registry) if found else b"Only /metrics is served here.\n"
        kind = prometheus.CONTENT_TYPE_LATEST if found else "text/plain; charset=utf-8"
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app
