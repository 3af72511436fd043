"""The responses of `/api/v1/environments`."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

__all__ = ["Environments", "Running"]


class Running(BaseModel):
    """One service in one environment: its newest release that was deployed and not rolled back."""

    environment: str
    service: str
    version: str
    commit: str | None
    url: str | None
    release_id: UUID
    since: datetime


class Environments(BaseModel):
    """Everything that is running, by environment, then by service."""

    items: list[Running]
