"""Requests and errors a second, and how long answers take, from the rates of two metrics of the service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["DURATIONS", "PROBED", "REQUESTS", "Rates", "Series", "Traffic"]

REQUESTS, DURATIONS = "http_requests_total", "http_request_duration_seconds_bucket"
# The edge and the engine ask for these every second, and a replica that drains answers 503 to each: nobody's errors.
PROBED = ("/health", "/ready")
SYNTHETIC = "synthetic"  # of the label `traffic`, which older releases do not have, as they have no `release`
HIGH = 0.95

Series = tuple[Mapping[str, str], float]  # the labels, and the rate a second


@dataclass(frozen=True)
class Traffic:
    """What is answered in a second: `requests`, the `synthetic` ones among them, and `errors` (5xx).

    `p95` is in seconds; None where nothing was answered.
    """

    requests: float
    synthetic: float
    errors: float
    p95: float | None


@dataclass(frozen=True)
class Rates:
    """Rates of the metrics over the last `seconds`, without health checks."""

    requests: tuple[Series, ...]
    durations: tuple[Series, ...]
    seconds: float

    @property
    def releases(self) -> tuple[str, ...]:
        """The releases that answered, where the metrics name them."""
        named = {labels["release"] for labels, rate in self.requests if labels.get("release") and rate > 0}
        return tuple(sorted(named))

    def traffic(self, release: str | None = None) -> Traffic:
        """Return the traffic of `release`, or that of all."""
        requests = list(_of(self.requests, release))
        buckets: Counter[float] = Counter()
        for labels, rate in _of(self.durations, release):
            buckets[float(labels["le"])] += rate  # type: ignore[assignment] # a Counter adds floats just as well
        return Traffic(
            requests=sum(rate for _, rate in requests),
            synthetic=sum(rate for labels, rate in requests if labels.get("traffic") == SYNTHETIC),
            errors=sum(rate for labels, rate in requests if labels.get("status", "").startswith("5")),
            p95=_quantile(HIGH, buckets),
        )


def _of(series: Iterable[Series], release: str | None) -> Iterable[Series]:
    return (one for one in series if release is None or one[0].get("release") == release)


def _quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """Return what `histogram_quantile` of Prometheus does of `buckets`: by upper bound, the rate of all up to it."""
    bounds = [(0.0, 0.0), *sorted(buckets.items())]
    wanted = share * bounds[-1][1]
    if not wanted:
        return None
    for (low, fewer), (high, more) in pairwise(bounds):
        if more >= wanted:
            return low if high == float("inf") else low + (high - low) * (wanted - fewer) / (more - fewer)
    return None
