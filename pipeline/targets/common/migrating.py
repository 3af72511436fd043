"""How long migrations may take, and who ends them: limits that lie inside of each other.

A statement has 60 s, one that blocks nobody as long as all migrations together: `migration_timeout`. The command itself
keeps these, cancels the statement in the database and says which migration it was. The pipeline waits longer, so that
it gives up only where the command cannot end by itself any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.project import Environment

__all__ = ["BRIEF", "STOP_SECONDS", "Limits", "limits"]

SECONDS = 600
LOCK_SECONDS = 60  # that the command waits for another migration to end (backend/migrations/connection.py)
START_SECONDS = 60  # of a container, on a busy machine, and of Python in it
STOP_SECONDS = 15  # from SIGTERM until the statement is cancelled and the command has ended


@dataclass(frozen=True)
class Limits:
    """The limits of one command: what it keeps itself, as variables, and the `seconds` that the pipeline waits."""

    environment: dict[str, str]
    seconds: float


BRIEF = Limits({}, SECONDS)  # of what changes nothing


def limits(env: Environment, *arguments: str) -> Limits:
    """Return the limits of the migrations command with `arguments`."""
    if arguments[:1] != ("upgrade",):
        return BRIEF
    own = {"MIGRATION_TIMEOUT_SECONDS": f"{env.migration_timeout:.0f}"}
    return Limits(own, env.migration_timeout + LOCK_SECONDS + START_SECONDS)
