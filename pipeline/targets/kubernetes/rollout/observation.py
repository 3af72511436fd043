"""What `kubectl get` returned of a namespace at one moment, by kind, and what a diagnosis asks of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    "superseded",
]

Json = Mapping[str, Any]

# One call reads them all. `kubectl get` lists them in this order: owners are read before what they made, so that a
# Deployment whose new generation is seen never lacks the ReplicaSet of that generation.
RESOURCES = "deployments,replicasets,statefulsets,jobs,pods,events,persistentvolumeclaims"
PODS = "deployments,replicasets,pods"  # what serves, and no more: takes a third of the time

REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class Observation:
    """The objects of one namespace, as the API returns them."""

    deployments: Sequence[Json] = ()
    replicasets: Sequence[Json] = ()
    pods: Sequence[Json] = ()
    jobs: Sequence[Json] = ()
    events: Sequence[Json] = ()  # oldest first
    claims: Sequence[Json] = ()  # PersistentVolumeClaims
    autoscalers: Sequence[Json] = ()  # only where they were asked for: a rollout does without
    now: float = field(default_factory=time.time)  # seconds since the Unix epoch, by this machine's clock

    @classmethod
    def of(cls, items: Iterable[Json]) -> Observation:
        """Make an observation of the `items` of `kubectl get RESOURCES -o json`."""
        kinds: dict[str, list[Json]] = {}
        for item in items:
            kinds.setdefault(item["kind"], []).append(item)
        return cls(
            deployments=kinds.get("Deployment", ()),
            replicasets=kinds.get("ReplicaSet", ()),
            pods=kinds.get("Pod", ()),
            jobs=kinds.get("Job", ()),
            events=sorted(kinds.get("Event", ()), key=event_time),
            claims=kinds.get("PersistentVolumeClaim", ()),
            autoscalers=kinds.get("HorizontalPodAutoscaler", ()),
        )

    def deployment(self, name: str) -> Json | None:
        """Return the Deployment `name`; None where there is none."""
        return next((one for one in self.deployments if named(one) == name), None)

    def newest_replicaset(self, deployment: Json, release: str | None = None) -> Json | None:
        """Return the ReplicaSet that `deployment` rolls out; None while its change is not seen, or is not `release`.

        It is the newest by revision, not by age: a rollback takes an old ReplicaSet again and gives it a new revision.
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
        """Return those of `items` that `owner` made."""
        uid = owner["metadata"]["uid"]
        return [one for one in items if any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences", ()))]

    def events_of(self, item: Json, reason: str) -> list[Json]:
        """Return the events of `item` whose reason matches the regular expression `reason`, oldest first."""
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
        """Whether a pod will leave by itself, and free its share of a node or of the quota."""
        return any(
            pod["metadata"].get("deletionTimestamp")
            or (_of_a_job(pod) and pod["status"].get("phase") in ("Pending", "Running"))
            for pod in self.pods
        )


def named(item: Json) -> str:
    """Return the name of `item`."""
    return str(item["metadata"]["name"])


def condition(item: Json, kind: str) -> Json:
    """Return the condition `kind` of `item`; empty where it has none."""
    matching = (one for one in item.get("status", {}).get("conditions", ()) if one["type"] == kind)
    return next(matching, {})


def container_pairs(pod: Json) -> list[tuple[Json, Json, bool]]:
    """Return each container that has a status, in order.

    Each is (spec, status, whether it is an init container that must end).
    """
    pairs = []
    for specs, statuses in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        known = {one["name"]: one for one in pod["status"].get(statuses, ())}
        for spec in pod["spec"].get(specs, ()):
            if spec["name"] in known:
                ends = specs == "initContainers" and spec.get("restartPolicy") != "Always"
                pairs.append((spec, known[spec["name"]], ends))
    return pairs


def event_time(event: Json) -> float:
    """Return when `event` was seen last, in seconds since the Unix epoch by the cluster's clock."""
    series = event.get("series") or {}
    latest = (
        event.get("lastTimestamp")
        or series.get("lastObservedTime")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    return epoch(latest)


def epoch(told: str | None) -> float:
    """Return a time in RFC 3339 as seconds since the Unix epoch; 0 where there is none."""
    return datetime.fromisoformat(told).timestamp() if told else 0.0


def quantity(text: str) -> int:
    """Return the bytes of a resource quantity of storage: `10Gi`, `500M`, `1073741824`."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", text).groups()  # type: ignore[union-attr] # the API server checked it
    power = "kmgtp".find(unit[:1].lower()) + 1 if unit else 0
    return int(float(number) * (1024 if unit.endswith("i") else 1000) ** power)


def _of_a_job(pod: Json) -> bool:
    """Return whether `pod` is of a Job that ends by itself."""
    # The vantage and what asks for a watch are Jobs, too, and stay; the trial is what waits for the room.
    name = pod["metadata"].get("labels", {}).get("app.kubernetes.io/name")
    owned = any(ref["kind"] == "Job" for ref in pod["metadata"].get("ownerReferences", ()))
    return owned and name not in ("vantage", "watch", "try-backend")


def superseded(pod: Json, pods: Iterable[Json]) -> bool:
    """Return whether a Job's `pod` failed, and a later one of `pods` of the same component did not.

    Kubernetes keeps those of CronJobs for days.
    """

    def made(one: Json) -> str:
        return str(one["metadata"].get("creationTimestamp", ""))

    def component(one: Json) -> Any:
        owned = any(ref["kind"] == "Job" for ref in one["metadata"].get("ownerReferences", ()))
        return owned and one["metadata"].get("labels", {}).get("app.kubernetes.io/component")

    if pod["status"].get("phase") != "Failed" or not component(pod):
        return False
    good = (one for one in pods if one["status"].get("phase") == "Succeeded" and component(one) == component(pod))
    return any(made(one) > made(pod) for one in good)
