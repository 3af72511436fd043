"""How long backups are kept and how old the newest may be: an environment's `backups = { … }`."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from pipeline.config.tables import Table, Text

__all__ = ["BackupPolicy"]

KEEP = re.compile(r"(?:[1-9]\d{0,3}d)(?: [1-9]\d{0,3}w)?|[1-9]\d{0,3}w")
AGE = re.compile(r"([1-9]\d{0,3})([hd])")
HOURS = {"h": 1, "d": 24}


class BackupPolicy(Table):
    """Of which days and weeks the newest backup is kept, and how old (in hours or days) the newest of all may be."""

    keep: Text = Field(default="7d 4w", examples=['"7d 4w" # the newest of each of 7 days and 4 weeks'])
    max_age: Text = Field(default="24h", examples=['"24h" # or "2d"'])

    @field_validator("keep")
    @classmethod
    def _is_a_rule(cls, keep: str) -> str:
        if not KEEP.fullmatch(keep):
            raise ValueError('must be days and weeks; for example `keep = "7d 4w"`')
        return keep

    @field_validator("max_age")
    @classmethod
    def _is_an_age(cls, age: str) -> str:
        if not AGE.fullmatch(age):
            raise ValueError('must be hours or days; for example `max_age = "24h"`')
        return age

    @property
    def seconds(self) -> int:
        """The age in seconds."""
        match = AGE.fullmatch(self.max_age)
        assert match is not None
        return int(match[1]) * HOURS[match[2]] * 3600
