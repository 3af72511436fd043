"""Can the release that runs live with the new schema? Tried before anything real is touched, on whatever a target has
to try it on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeVar

from pipeline.errors import DeployFailed
from pipeline.proof.results import Failure
from pipeline.proof.smoke import smoke
from pipeline.releases.model import Artifact, short

__all__ = ["Stand", "cannot_live", "rehearse"]

D = TypeVar("D")

SMOKE_TIMEOUT_SECONDS = 10


class Stand(Protocol[D]):
    """What a target rehearses on. Both parts are gone when their block ends, however it does."""

    def database(self, new: Artifact, *to: str) -> AbstractContextManager[D]:
        """An empty database that NEW's migrations brought to its revision (TO: arguments that name another one).

        Raises `DeployFailed` where one fails.
        """

    def replica(self, release: Artifact, database: D) -> AbstractContextManager[str]:
        """A ready replica of RELEASE on DATABASE, with a throwaway Redis: its base address for the smoke requests."""


def rehearse(stand: Stand[D], new: Artifact, old: Artifact | None, token: str | None) -> None:
    """Migrate an empty database with NEW, then let one replica of OLD pass its own smoke requests there."""
    failures = _failures(stand, new, (), old, token)
    if failures and old and old.revision:
        # What fails on the old schema too is no fault of the migration, which may be what mends it.
        known = {one.request for one in _failures(stand, new, ("--to", old.revision), old, token)}
        failures = [one for one in failures if one.request not in known]
    if failures and old:
        first = failures[0]
        raise cannot_live(old, f"{first.method} {first.path}: {first.detail}")


def cannot_live(release: Artifact, why: str) -> DeployFailed:
    """The error for a release that the new schema breaks."""
    return DeployFailed(f"the running release {short(release.name)} cannot live with the new schema: {why}")


def _failures(
    stand: Stand[D], new: Artifact, to: tuple[str, ...], old: Artifact | None, token: str | None
) -> list[Failure]:
    """What fails of OLD's smoke requests on a database that NEW's migrations brought TO a revision."""
    with ExitStack() as stack:
        database = stack.enter_context(stand.database(new, *to))
        if old is None:
            return []
        base = stack.enter_context(stand.replica(old, database))
        return smoke(old.requests, base, token, SMOKE_TIMEOUT_SECONDS)
