"""The responses of `/health` and `/ready`."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["WRITES", "Check", "CheckName", "Excludable", "Health", "Readiness"]


class CheckName(StrEnum):
    """The checks of readiness."""

    DATABASE = "database"
    SCHEMA = "schema"
    REDIS = "redis"
    DRAINING = "draining"


# No check of its own: without it, a database that takes no writes is `degraded`, because reads are still answered.
WRITES = "writes"
Excludable = CheckName | Literal["writes"]


class Health(BaseModel):
    """The process is alive."""

    status: str = "ok"


class Check(BaseModel):
    """One check: `ok`, `degraded` (which does not count), `failed`, `timeout` or `excluded`, and how long it took."""

    state: str = Field(examples=["ok"])
    ms: float = Field(examples=[0.42], description="milliseconds")
    detail: str | None = Field(default=None, examples=["the database is at revision 0001, this release needs 0002"])


class Readiness(BaseModel):
    """Whether to send traffic here, and why."""

    ready: bool
    checks: dict[CheckName, Check]
