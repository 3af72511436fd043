"""What `kubectl get` said of a namespace at one moment, by kind, and what a diagnosis asks of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

__all__ = [
    "RESOURCES",
    "Json",
    "Observation",
    "condition",
    "container_pairs",
    "epoch",
    "event_time",
    "named",
    "quantity",
]

Json = Mapping[str, Any]

# One call reads them all. `kubectl get` lists them in this order: what makes others is read before what it made, so
# that a Deployment whose new generation is seen never lacks the ReplicaSet of it.
RESOURCES = "deployments,replicasets,statefulsets,jobs,pods,events,persistentvolumeclaims"
PODS = "deployments,replicasets,pods"  # who serves, and no more: a third of the time

REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Observation:
    """The objects of one namespace, as the API says them."""

    deployments: Sequence[Json] = ()
    replicasets: Sequence[Json] = ()
    pods: Sequence[Json] = ()
    events: Sequence[Json] = ()  # oldest first
    claims: Sequence[Json] = ()  # PersistentVolumeClaims
    autoscalers: Sequence[Json] = ()  # where they were asked for: a rollout goes on without

    @classmethod
    def of(cls, items: Iterable[Json]) -> Observation:
        """From the `items` of `kubectl get RESOURCES -o json`."""
        kinds: dict[str, list[Json]] = {}
        for item in items:
            kinds.setdefault(item["kind"], []).append(item)
        return cls(
            deployments=kinds.get("Deployment", ()),
            replicasets=kinds.get("ReplicaSet", ()),
            pods=kinds.get("Pod", ()),
            events=sorted(kinds.get("Event", ()), key=event_time),
            claims=kinds.get("PersistentVolumeClaim", ()),
            autoscalers=kinds.get("HorizontalPodAutoscaler", ()),
        )

    def deployment(self, name: str) -> Json | None:
        """The Deployment NAME."""
        return next((one for one in self.deployments if named(one) == name), None)

    def newest_replicaset(self, deployment: Json, release: str | None = None) -> Json | None:
        """The ReplicaSet that DEPLOYMENT rolls out; None while the change has not been seen, or it is not RELEASE.

        By revision, not by age: a rollback takes an old ReplicaSet again and gives it a new revision.
        """
        meta, status = deployment["metadata"], deployment.get("status", {})
        if status.get("observedGeneration", 0) < meta.get("generation", 0):
            return None
        sets = self.owned(self.replicasets, deployment)
        newest = max(sets, key=lambda one: int(one["metadata"].get("annotations", {}).get(REVISION, 0)), default=None)
        if newest is None:
            return None
        annotations = newest["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
        return newest if release is None or annotations.get("slipway/release") == release else None

    def owned(self, items: Iterable[Json], owner: Json) -> list[Json]:
        """Those of ITEMS that OWNER made."""
        uid = owner["metadata"]["uid"]
        return [one for one in items if any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences", ()))]

    def events_of(self, item: Json, reason: str) -> list[Json]:
        """The events of ITEM whose reason matches the regular expression REASON, oldest first."""
        meta = item["metadata"]
        return [
            event
            for event in self.events
            if event["involvedObject"].get("uid", meta["uid"]) == meta["uid"]
            and event["involvedObject"].get("name") == meta["name"]
            and event["involvedObject"].get("kind") == item["kind"]
            and re.fullmatch(reason, event.get("reason") or "")
        ]

    @property
    def room_to_come(self) -> bool:
        """Whether a pod leaves by itself, and its share of a node or of the quota with it."""
        return any(
            pod["metadata"].get("deletionTimestamp")
            or (_of_a_job(pod) and pod["status"].get("phase") in ("Pending", "Running"))
            for pod in self.pods
        )


def named(item: Json) -> str:
    """Its name."""
    return str(item["metadata"]["name"])


def condition(item: Json, kind: str) -> Json:
    """Its condition KIND; empty where it has none."""
    found = (one for one in item.get("status", {}).get("conditions", ()) if one["type"] == kind)
    return next(found, {})


def container_pairs(pod: Json) -> list[tuple[Json, Json, bool]]:
    """(spec, status, whether it is an init container that must end) of each container that has a status, in order."""
    pairs = []
    for specs, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        known = {one["name"]: one for one in pod["status"].get(statuses, ())}
        for spec in pod["spec"].get(specs, ()):
            if spec["name"] in known:
                ends = specs == "initContainers" and spec.get("restartPolicy") != "Always"
                pairs.append((spec, known[spec["name"]], ends))
    return pairs


def event_time(event: Json) -> float:
    """When it was seen last, seconds since the Unix epoch by the cluster's clock."""
    series = event.get("series") or {}
    told = (
        event.get("lastTimestamp")
        or series.get("lastObservedTime")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    return epoch(told)


def epoch(told: str | None) -> float:
    """RFC 3339 in seconds since the Unix epoch; 0 for none."""
    return datetime.fromisoformat(told).timestamp() if told else 0.0


def quantity(text: str) -> int:
    """Bytes of a resource QUANTITY of storage: `10Gi`, `500M`, `1073741824`."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", text).groups()  # type: ignore[union-attr] # the API server checked it
    power = "kmgtp".find(unit[:1].lower()) + 1 if unit else 0
    return int(float(number) * (1024 if unit.endswith("i") else 1000) ** power)


def _of_a_job(pod: Json) -> bool:
    """Of a Job that ends by itself; the vantage is one too, and stays as long as the rollout."""
    labels = pod["metadata"].get("labels", {})
    owned = any(ref["kind"] == "Job" for ref in pod["metadata"].get("ownerReferences", ()))
    return owned and labels.get("app.kubernetes.io/component") != "vantage"
