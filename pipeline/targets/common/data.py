"""The lines, alike on every target, about data that is missing or of another major, each with its fix."""

from __future__ import annotations

import re

__all__ = ["OUTSIDE", "major_of", "no_database", "other_major", "upgrade_command"]

OUTSIDE = "the database is managed by others (DATABASE_URL): whoever runs it upgrades it"
MAJOR = re.compile(r"\d+")


def major_of(said: str) -> str | None:
    """Return the first number in `said`, from `postgres --version` or a PG_VERSION file; None where there is none."""
    match = MAJOR.search(said)
    return match[0] if match else None


def upgrade_command(env: str) -> str:
    """Return the command that moves the data of `env` to a new major, for a text."""
    return f"`nox -s upgrade-database -- {env}`"


def other_major(place: str, data: str, server: str, back: str, way: str) -> str:
    """Return the line for data in `place` of major `data` that `server` (its name and major) cannot read.

    `back` says how to return to a server that can, `way` how the data gets to the new one.
    """
    return f"the data in {place} is of PostgreSQL {data}, which {server} cannot read: {back}, or {way}"


def no_database(env: str, what: str, back: str) -> str:
    """Return the line for `what` is missing in `env`, where releases were proved, and how to get it `back`."""
    empty = f"`nox -s deploy -- {env} --empty-database`"
    return f"{what}, although releases were proved on {env} before: {back}, or begin with an empty database: {empty}"
