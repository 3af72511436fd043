"""A Prometheus that is told what it knows, and a clock that goes only while somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from pipeline.metrics.prometheus import Alert, Prometheus, PrometheusError

__all__ = ["FAILING", "FakePrometheus"]

FAILING = Alert(
    name="ReleaseFailing",
    state="firing",
    severity="page",
    summary="Release b fails more requests than the one before.",
    since=None,
    runbook=None,
    release="b",
    rollback=True,
)


@dataclass
class FakePrometheus(Prometheus):
    """`firing` are its alerts, `counted` the requests, `away` why it does not answer.

    `meanwhile` is what happens at the first sleep after so many seconds.
    """

    firing: list[Alert] = field(default_factory=list)
    counted: float = 600.0
    away: str | None = None
    meanwhile: dict[float, Callable[[], object]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _seconds: float = 0.0

    def clock(self) -> float:
        """Return how long was slept."""
        return self._seconds

    def sleep(self, seconds: float) -> None:
        """Let the time pass, and what happens in it."""
        self._seconds += seconds
        for at in [at for at in self.meanwhile if at <= self._seconds]:
            self.meanwhile.pop(at)()

    def fire(self, alert: Alert = FAILING, *, ago: float = 0.0) -> None:
        """Fire `alert`, which began so many seconds ago."""
        self.firing.append(replace(alert, since=(datetime.now(UTC) - timedelta(seconds=ago)).isoformat()))

    def watched(self, release: str) -> float:
        """Say what it was told to."""
        self._answer()
        self.asked.append(release)
        return self.counted

    def alerts(self) -> tuple[Alert, ...]:
        """Say what it was told to."""
        self._answer()
        return tuple(self.firing)

    def _answer(self) -> None:
        if self.away:
            raise PrometheusError(self.away)
