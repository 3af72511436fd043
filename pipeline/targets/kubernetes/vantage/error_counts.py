"""What the pods of a rollout count themselves: the errors of people, whose requests the proof does not send.

Pure: what the vantage read, and when, becomes a judgement. Pods are compared by the errors in a second of one pod, as
each of them, old or new, has an equal share of the users.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Sample", "against", "counted"]

# By chance fewer than 1 in 20 old releases have more than this above what was seen of them (a Poisson count: of none
# seen, up to 3 are expected), and a single user with a request that always breaks stays below it.
SPARE = 3.0
SIGMAS = 2.0


@dataclass(frozen=True)
class Sample:
    """What was read at a moment (monotonic seconds): the errors of each address until then, and `own`, those that the
    vantage got itself.
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
    """What the old pods counted while they were there, and the new ones once all of them were ready (COMPLETE).

    NEW: their addresses; who came later is new, too.
    """
    early = {address for one in samples if one.at < complete for address in one.errors}
    every = {address for one in samples for address in one.errors}
    fresh = set(new) | (every - early)
    old = _sum([one for one in samples if one.at < complete], every - fresh)
    late = [one for one in samples if one.at >= complete]
    found = _sum(late, fresh)
    own = late[-1].own - late[0].own if late else 0
    return old, Counted(max(0, found.errors - own), found.seconds)


def against(old: Counted, new: Counted, known: int) -> str | None:
    """What NEW pods' errors say against their release; None where the OLD ones may have had as many.

    KNOWN: how many of them the proof has had, and allows. Without a look at old pods nothing can be said.
    """
    errors = new.errors - known
    if not old.seconds or not new.seconds:
        return None
    allowed = (old.errors + SIGMAS * math.sqrt(old.errors) + SPARE) * max(1.0, new.seconds / old.seconds)
    if errors <= allowed:
        return None
    return (
        f"its pods answered {errors} requests of others with 5xx in {new.seconds:.0f} s of a pod, by their own metrics;"
        f" the release before, {old.errors} in {old.seconds:.0f} s: look for them in the logs"
    )


def _sum(samples: Sequence[Sample], addresses: Iterable[str]) -> Counted:
    errors, seconds = 0, 0.0
    for address in addresses:
        seen = [(one.at, one.errors[address]) for one in samples if address in one.errors]
        for (before, fewer), (after, more) in itertools.pairwise(seen):
            errors += more - fewer if more >= fewer else more  # a container that was started again counts from 0
            seconds += after - before
    return Counted(errors, seconds)
