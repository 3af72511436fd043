"""What users are promised: `[tool.slipway.slo]`. The rules of `monitoring/` are made from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.config.tables import Table

__all__ = ["Slo"]

# Below 95 % a fast burn, 14.4 times the budget, comes near to all requests: it could hardly happen.
Share = Annotated[float, Field(ge=95, le=99.999)]
LONGEST_LATENCY_MS = 10_000


class Slo(Table):
    """The objectives: shares in percent of users' requests, latency in ms, the window in days."""

    availability: Share = Field(default=99.9, examples=["99.9 # percent that are not answered with 5xx"])
    latency_share: Share = Field(default=99, examples=["99 # percent that are answered within latency_ms"])
    latency_ms: Annotated[float, Field(ge=1, le=LONGEST_LATENCY_MS)] = Field(default=250, examples=["250"])
    window_days: Annotated[int, Field(ge=7, le=90)] = Field(default=30, examples=["30"])

    @property
    def budgets(self) -> dict[str, float]:
        """The share of requests that may fail, from 0 to 1, by objective."""
        shares = {"availability": self.availability, "latency": self.latency_share}
        return {name: round(1 - share / 100, 8) for name, share in shares.items()}
