"""The plan that the generator's process is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    `rate` requests a second go to `base` (`http://host:port` or `unix:/path`): `requests`, until a phase brings others.
    Each waits at most `timeout` seconds, or its own. `journal` is the absolute path of the file that outlives a killed
    proof. Correct answers after `slow_ms`, if that is given, are also counted, and shown, as slow.
    """

    base: str
    rate: float
    requests: tuple[RequestSpec, ...]
    journal: Path
    phase: str = "baseline"
    timeout: float = 10.0
    slow_ms: float | None = None
    token: str | None = field(default=None, repr=False)

    def longest(self, requests: Sequence[RequestSpec]) -> float:
        """Return the seconds that the slowest call of `requests` may take."""
        return max([self.timeout, *(call.seconds or 0 for spec in requests for call in (spec, *spec.then))])

    def dump(self) -> dict[str, Any]:
        """Return the plan as JSON values, including the token: for a pipe, never for a file or a command line."""
        return {**vars(self), "requests": [spec.table() for spec in self.requests], "journal": str(self.journal)}

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> TrafficPlan:
        """Create a plan from what `dump` returned."""
        specs = parse_requests(values["requests"], "requests")
        return cls(**{**values, "requests": specs, "journal": Path(values["journal"])})
