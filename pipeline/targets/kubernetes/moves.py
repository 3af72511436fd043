"""Which PostgreSQL of a namespace serves, and which of its claims has the data: it may have moved to another major.

A claim outlives a deploy, a StatefulSet and the machine that deploys. So what it has, its annotations say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.targets.kubernetes.store import NAME, Store, find_store

__all__ = ["COPY_OF", "LEFT", "MOVED_TO", "POD_NAME", "SWITCHING", "Step", "Stores", "pod_of", "without_moved"]

COPY_OF = "slipway/copy-of"  # of a new claim: that from which it was filled
MOVED_TO = "slipway/moved-to"  # of an old claim: that which took its place; to set it is the switch
SWITCHING = "slipway/switching-since"  # of a new claim, until its server takes writes
LEFT = "slipway/left-at"  # of a new claim: when a switch to it was undone; it alone has what was written until then
POD_NAME = "statefulset.kubernetes.io/pod-name"


class Step(Enum):
    """What brings a move to its end that was killed."""

    ABANDON = "abandon"
    GO_ON = "go on"
    SWITCH_BACK = "switch back"


@dataclass(frozen=True)
class Stores:
    """What there is in a namespace.

    `claims`: the annotations of each claim, by its name. `sets`: the StatefulSets of PostgreSQL by their names; `led`
    is that of the one to which the Service leads.
    """

    claims: Mapping[str, Mapping[str, str]]
    sets: Mapping[str, Object] = field(default_factory=dict)
    led: str = NAME

    @classmethod
    def read(cls, kubectl: Kubectl) -> Self:
        """Ask the cluster."""
        found = kubectl.get("persistentvolumeclaims,statefulsets,services")
        claims = {
            name_of(one): one["metadata"].get("annotations") or {}
            for one in found
            if one["kind"] == "PersistentVolumeClaim"
        }
        sets = {name_of(one): one for one in found if find_store([one])}
        services = [one for one in found if (one["kind"], name_of(one)) == ("Service", NAME)]
        pods = [pod for one in services if (pod := one["spec"].get("selector", {}).get(POD_NAME))]
        return cls(claims, sets, pods[0].rpartition("-")[0] if pods else NAME)

    @property
    def serving(self) -> Object | None:
        """The StatefulSet to which the Service leads."""
        return self.sets.get(self.led)

    def of_claim(self, claim: str) -> Object | None:
        """Return the StatefulSet whose data is in `claim`."""
        return next((one for one in self.sets.values() if Store.of(one).claim == claim), None)

    def origin(self, claim: str) -> str | None:
        """Return the claim from which `claim` was filled, where that is still there."""
        origin = self.claims.get(claim, {}).get(COPY_OF)
        return origin if origin in self.claims else None

    def moved_to(self, claim: str | None) -> str | None:
        """Return the claim that took the place of `claim`; None where it has the data itself."""
        return self.claims.get(claim or "", {}).get(MOVED_TO)

    def is_copy(self, claim: str | None) -> bool:
        """Return whether `claim` has a copy of what is served from another one, and lacks what was written since."""
        origin = self.origin(claim or "")
        return origin is not None and self.moved_to(origin) != claim

    def unfinished(self) -> Iterator[tuple[str, Step]]:
        """Yield each new claim whose move was killed, with what is to be done: nobody works at it, who has the lock."""
        for claim in self.claims:
            one, origin = self.of_claim(claim), self.origin(claim)
            if one is None or origin is None:
                continue
            if self.is_copy(claim):
                if one["spec"].get("replicas", 1):
                    yield claim, Step.ABANDON
            elif LEFT in self.claims[claim]:
                yield claim, Step.SWITCH_BACK
            elif SWITCHING in self.claims[claim]:
                yield claim, Step.GO_ON


def pod_of(one: Object) -> str:
    """Return the name of the pod of a StatefulSet of PostgreSQL."""
    return f"{name_of(one)}-0"


def without_moved(objects: list[Object], stores: Stores) -> list[Object]:
    """Return the `objects` of a release without a PostgreSQL whose data has moved since.

    Neither its StatefulSet nor its Service is applied, so the one that serves stays as it is.
    """
    store = find_store(objects)
    if store is None or not stores.moved_to(Store.of(store).claim):
        return objects
    gone = {("StatefulSet", name_of(store)), ("Service", NAME)}
    return [one for one in objects if (one["kind"], name_of(one)) not in gone]
