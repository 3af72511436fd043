"""The requests and responses of `/api/v1/releases`."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

__all__ = ["Environment", "NewRelease", "Page", "Release", "ReleaseChange", "ReleaseStatus", "Service"]


def _storable(text: str) -> str:
    if "\x00" in text:  # PostgreSQL's text cannot hold this character
        raise ValueError("must not contain the character U+0000")
    return text


def _web_address(text: str) -> str:
    if not text.startswith(("https://", "http://")):  # a `javascript:` link must not reach the page
        raise ValueError("must start with https:// or http://")
    return _storable(text)


# The schema says what the validators refuse, whose messages are better than that of a pattern.
STORABLE = {"pattern": r"^[^\u0000]*$"}
WEB_ADDRESS = {"pattern": r"^https?://[^\u0000]*$"}
NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._/-]*$"
Service = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME, examples=["checkout"])]
Environment = Annotated[str, Field(min_length=1, max_length=63, pattern=NAME, examples=["production"])]
Version = Annotated[
    str,
    Field(min_length=1, max_length=128, examples=["1.4.2"], json_schema_extra=dict(STORABLE)),
    AfterValidator(_storable),
]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{7,64}$", examples=["3f2a9c1"])]
Url = Annotated[str, Field(max_length=2048, json_schema_extra=dict(WEB_ADDRESS)), AfterValidator(_web_address)]
Notes = Annotated[str, Field(max_length=10_000, json_schema_extra=dict(STORABLE)), AfterValidator(_storable)]


class ReleaseStatus(StrEnum):
    """What became of a release. `deployed` means that it took over; the newest such release is what runs."""

    PENDING = "pending"
    DEPLOYED = "deployed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class NewRelease(BaseModel):
    """A release to record."""

    model_config = ConfigDict(extra="forbid")

    service: Service
    environment: Environment
    version: Version
    status: ReleaseStatus = ReleaseStatus.PENDING
    commit: Commit | None = None
    url: Url | None = None
    notes: Notes | None = None


class ReleaseChange(BaseModel):
    """The fields to change; absent ones stay. What a release is (service, environment, version) never changes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    status: ReleaseStatus = ReleaseStatus.PENDING
    commit: Commit | None = None
    url: Url | None = None
    notes: Notes | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ReleaseChange:
        if not self.model_fields_set:
            raise ValueError("must change at least one field")
        return self


class Release(BaseModel):
    """A recorded release. `id` sorts by the time of recording."""

    id: UUID
    service: str
    environment: str
    version: str
    status: ReleaseStatus
    commit: str | None
    url: str | None
    notes: str | None
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    """Releases, newest first. `next_cursor` is null on the last page."""

    items: list[Release]
    next_cursor: str | None
