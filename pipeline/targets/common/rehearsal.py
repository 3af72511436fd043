"""The rehearsal: whether the running release can live with the new schema.

It takes place before anything real is touched, on whatever stand a target has for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, TypeVar

from pipeline.errors import DeployFailed
from pipeline.proof.results import Failure
from pipeline.proof.smoke import smoke
from pipeline.releases.model import Artifact, short

__all__ = ["REHEARSAL", "Stand", "cannot_live", "fails_on_empty", "rehearse"]

D = TypeVar("D")

# For the migrations command: it makes the roles and extensions that the migrations name, and that on the real server
# an administrator makes, with the superuser's login. Whether the real one has them, and who may do what there, was
# asked there before.
REHEARSAL = {"MIGRATION_REHEARSAL": "true"}
NOT_OFFERED = re.compile(r'extension "([^"]+)" is not available')


class Stand(Protocol[D]):
    """The stand on which a target rehearses. Both parts are removed when their block ends, however it ends."""

    def database(self, new: Artifact, *to: str) -> AbstractContextManager[D]:
        """Provide an empty database that the migrations of `new` brought to its revision, as its owner.

        `to` are arguments that name another revision. Raise `DeployFailed` where a migration fails.
        """

    def replica(self, release: Artifact, database: D) -> AbstractContextManager[str]:
        """Provide the base address, for smoke requests, of a ready replica of `release`.

        The replica runs on `database` with the role that a service has there, and with a throwaway Redis.
        """


def rehearse(stand: Stand[D], new: Artifact, old: Artifact | None, token: str | None) -> None:
    """Migrate an empty database with `new`, then send the smoke requests of `old` to a replica of it on that database.

    Raise `DeployFailed` where a request fails that does not fail on the schema of `old` too.
    """
    failures = _failures(stand, new, (), old, token)
    if failures and old and old.revision:
        # A request that fails on the old schema too is not the fault of the migration, which may even fix it.
        known = {failure.request for failure in _failures(stand, new, ("--to", old.revision), old, token)}
        failures = [failure for failure in failures if failure.request not in known]
    if failures and old:
        first = failures[0]
        raise cannot_live(old, f"{first.method} {first.path}: {first.detail}")


def fails_on_empty(said: str) -> DeployFailed:
    """Return the error for a migration that fails in its rehearsal; `said` is the last line of the command."""
    found = NOT_OFFERED.search(said)
    if found:
        return DeployFailed(
            f"a migration makes the extension {found[1]}, which the PostgreSQL of its rehearsal does not offer: the"
            f" rehearsal runs on the same engine as the environment (on Kubernetes without its own PostgreSQL, on the"
            " usual image). Install it in that image"
        )
    return DeployFailed(f"a migration fails on an empty database: {said}")


def cannot_live(release: Artifact, why: str) -> DeployFailed:
    """Return the error for a release that the new schema breaks."""
    return DeployFailed(f"the running release {short(release.name)} cannot live with the new schema: {why}")


def _failures(
    stand: Stand[D], new: Artifact, to: tuple[str, ...], old: Artifact | None, token: str | None
) -> Sequence[Failure]:
    """Return how smoke requests of `old` fail on a database that the migrations of `new` brought `to` a revision."""
    with ExitStack() as stack:
        database = stack.enter_context(stand.database(new, *to))
        if old is None:
            return ()
        base = stack.enter_context(stand.replica(old, database))
        return smoke(old.requests, base, token).failures
