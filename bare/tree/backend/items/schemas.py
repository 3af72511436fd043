"""The requests and responses of `/api/v1/items`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["Item", "ItemChange", "NewItem", "Page"]


def _storable(text: str) -> str:
    if "\x00" in text:  # PostgreSQL's text cannot hold this character
        raise ValueError("must not contain the character U+0000")
    return text


STORABLE = {"pattern": r"^[^\u0000]*$"}  # what the validator refuses, for the schema
Name = Annotated[
    str,
    Field(min_length=1, max_length=128, examples=["lamp"], json_schema_extra=dict(STORABLE)),
    AfterValidator(_storable),
]


class NewItem(BaseModel):
    """An item to keep."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class ItemChange(NewItem):
    """What an item is to be from now on."""


class Item(BaseModel):
    """An item that is kept. `id` sorts by the time at which it was made."""

    id: UUID
    name: str
    created_at: datetime


class Page(BaseModel):
    """Items, newest first. The next page begins `before` the last one's id; there is none after a short page."""

    items: list[Item]
