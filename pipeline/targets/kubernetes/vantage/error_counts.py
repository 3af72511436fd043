"""The errors that the pods of a rollout count themselves: those of users, whose requests the proof does not send.

Pure: what the vantage read, and when, becomes a judgement. Pods are compared by their errors per second of one pod,
because each of them, old or new, has an equal share of the users.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Sample", "against", "counted"]

# By chance, fewer than 1 in 20 old releases have more errors than were seen of them plus this (a Poisson count: where
# none was seen, up to 3 are expected), and a single user with a request that always breaks stays below it.
SPARE = 3.0
SIGMAS = 2.0


@dataclass(frozen=True)
class Sample:
    """What was read at one moment.

    `at`: monotonic seconds. `errors`: the errors of each address until then. `own`: those that the vantage got itself.
    """

    at: float
    errors: Mapping[str, int]
    own: int = 0


@dataclass(frozen=True)
class Counted:
    """How many errors were counted in how many seconds, over all pods."""

    errors: int
    seconds: float


def counted(samples: Sequence[Sample], new: Iterable[str], complete: float) -> tuple[Counted, Counted]:
    """Return what the old pods counted while they existed, and the new ones once all of them were ready (`complete`).

    `new`: the addresses of the new pods; a pod that came later is new, too.
    """
    early = {address for one in samples if one.at < complete for address in one.errors}
    every = {address for one in samples for address in one.errors}
    fresh = set(new) | (every - early)
    old = _sum([one for one in samples if one.at < complete], every - fresh)
    late = [one for one in samples if one.at >= complete]
    total = _sum(late, fresh)
    own = late[-1].own - late[0].own if late else 0
    return old, Counted(max(0, total.errors - own), total.seconds)


def against(old: Counted, new: Counted, known: int) -> str | None:
    """Return what the errors of `new` pods say against their release; None where the `old` ones may have had as many.

    `known`: how many of them the proof has had, and allows. Without a look at old pods nothing can be said.
    """
    errors = new.errors - known
    if not old.seconds or not new.seconds:
        return None
    allowed = (old.errors + SIGMAS * math.sqrt(old.errors) + SPARE) * max(1.0, new.seconds / old.seconds)
    if errors <= allowed:
        return None
    return (
        f"its pods answered {errors} requests from others with 5xx in {new.seconds:.0f} pod-seconds, by their own"
        f" metrics; the release before, {old.errors} in {old.seconds:.0f}: look for them in the logs"
    )


def _sum(samples: Sequence[Sample], addresses: Iterable[str]) -> Counted:
    errors, seconds = 0, 0.0
    for address in addresses:
        counts = [(one.at, one.errors[address]) for one in samples if address in one.errors]
        for (before, fewer), (after, more) in itertools.pairwise(counts):
            errors += more - fewer if more >= fewer else more  # a container that was restarted counts from 0
            seconds += after - before
    return Counted(errors, seconds)
