"""The plan that the generator's process is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.requests import RequestSpec, parse_requests

__all__ = ["ABANDON_SECONDS", "LOOK_SECONDS", "SETTLE_SECONDS", "TrafficPlan"]

SETTLE_SECONDS = 60.0  # for reading back and removing all writes: 480 took 0.8 s on two shared cores
LOOK_SECONDS = 10.0  # for seeing whether people are shown the writes
ABANDON_SECONDS = 5.0  # for removing as much as possible once the proof is called off


@dataclass(frozen=True)
class TrafficPlan:
    """What to send, and where.

    `rate` requests a second go to `base` (`http://host:port` or `unix:/path`): at first `requests` (those that both the
    old and the new release answer), later `full`. Each waits at most `timeout` seconds, or its own. `journal` is the
    absolute path of the file that outlives a killed proof. Correct answers after `slow_ms` are also counted, and shown,
    as slow.
    """

    base: str
    rate: float
    requests: tuple[RequestSpec, ...]
    full: tuple[RequestSpec, ...]
    journal: Path
    phase: str = "baseline"
    timeout: float = 10.0
    slow_ms: float = 500.0
    token: str | None = field(default=None, repr=False)

    @property
    def longest(self) -> float:
        """The seconds that the slowest of its calls may take."""
        calls = [call for spec in (*self.requests, *self.full) for call in (spec, *spec.then)]
        return max(self.timeout, *(call.seconds or 0 for call in calls), 0)

    def dump(self) -> dict[str, Any]:
        """Return the plan as JSON values, including the token: for a pipe, never for a file or a command line."""
        tables = {key: [spec.table() for spec in specs] for key, specs in self._specs().items()}
        return {**vars(self), **tables, "journal": str(self.journal)}

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> TrafficPlan:
        """Create a plan from what `dump` returned."""
        specs = {key: parse_requests(values[key], key) for key in ("requests", "full")}
        return cls(**{**values, **specs, "journal": Path(values["journal"])})

    def _specs(self) -> dict[str, tuple[RequestSpec, ...]]:
        return {"requests": self.requests, "full": self.full}
