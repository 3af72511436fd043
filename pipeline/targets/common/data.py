"""What every target says of data that is not the one that was in use: one line, with its fix."""

from __future__ import annotations

import re

__all__ = ["RUNBOOK", "major_of", "no_database", "other_major"]

RUNBOOK = "docs/4-runbook.md, A new PostgreSQL major"
MAJOR = re.compile(r"\d+")


def major_of(said: str) -> str | None:
    """Return the first number in what `postgres --version` or a PG_VERSION file SAID; None where there is none."""
    found = MAJOR.search(said)
    return found[0] if found else None


def other_major(place: str, data: str, server: str, back: str) -> str:
    """Say that the data in PLACE is of major DATA, which SERVER (its name and its major) cannot read."""
    fix = f"{back}, or move the data by hand ({RUNBOOK})"
    return f"the data in {place} is of PostgreSQL {data}, which {server} cannot read: {fix}"


def no_database(env: str, what: str, back: str) -> str:
    """Say WHAT is missing in an environment where releases were proved, and BACK, how it comes back."""
    empty = f"`nox -s deploy -- {env} --empty-database`"
    return f"{what}, although releases were proved on {env} before: {back}, or begin with an empty database: {empty}"
