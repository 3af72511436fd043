"""Since when each secret has had its value, as far as deploys noted it: a part of its hash, and a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pipeline.config.settings import service_secrets
from pipeline.releases.records import Record, Records, read_json
from pipeline.system.text import digits

__all__ = ["DAYS", "NOTED", "ages_of", "old_secrets"]

DAYS = 90
NOTED = "secrets"  # in the record of a deploy
PREVIOUS = "_PREVIOUS"  # accepted beside the one in use, for a while


def ages_of(records: Records, secrets: Mapping[str, str], now: str) -> dict[str, list[str]]:
    """Return for each of `secrets` what tells its value from others, and since when a deploy has known it to be that.

    The value itself may be older.
    """
    known = next((noted for one in reversed(records.all()) if (noted := _noted(one))), {})
    marks = {one.name: digits(value) for one in service_secrets() if (value := secrets.get(one.name))}
    return {
        name: known[name] if known.get(name, [""])[0] == mark else [mark, now]
        for name, mark in marks.items()
        if not name.endswith(PREVIOUS)
    }


def old_secrets(serving: Record, now: datetime) -> list[str] | None:
    """Return a line for each secret that what is `serving` has had for too long; None where nobody noted since when."""
    noted = _noted(serving)
    ages = {name: now - datetime.fromisoformat(since) for name, (_, since) in noted.items()}
    lines = [
        f"{name} has been in use for {age.days} days, since {noted[name][1][:10]} or longer"
        for name, age in ages.items()
        if age > timedelta(days=DAYS)
    ]
    return lines if noted else None


def _noted(record: Record) -> dict[str, Any]:
    noted: dict[str, Any] = read_json(record.folder / "begun.json").get(NOTED) or {}
    return noted
