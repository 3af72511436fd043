"""What keeps a pod from its place: no node for it, no storage, a node that is away or evicts it. Pure."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.system.text import shorten
from pipeline.targets.kubernetes.rollout.findings import SYNC_SECONDS, Finding, one_line
from pipeline.targets.kubernetes.rollout.observation import Json, Observation, condition, container_pairs, named

__all__ = ["claim_finding", "eviction", "node_lost", "unbound", "unschedulable"]

SCHEDULING_SECONDS = 15  # another pod may leave, another node may join
EVICTIONS = 3


def unschedulable(seen: Observation, pod: Json, scheduled: Json) -> Finding:
    """Return why no node takes `pod`, by its condition `scheduled`, and which resource is short."""
    name, message = named(pod), one_line(scheduled.get("message", ""))
    match = re.search(r"nodes are available: (.*?)\.(?: |$)", message)
    reasons = match[1] if match else message
    lacking = re.findall(r"Insufficient ([\w./-]+)", reasons)
    asked = ", ".join(f"{what} {amount}" for what in lacking if (amount := _requested(pod, what)))
    fix = "fix nodeSelector, affinity or tolerations"
    if lacking:
        wants = f" (it requests {asked})" if asked else ""
        fix = f"lower its requests, or add a node{wants}"
    elif "Too many pods" in reasons:
        fix = "add a node"
    elif claim := re.search(r'persistentvolumeclaim "([^"]+)" not found', reasons):
        fix = f"create the PersistentVolumeClaim {claim[1]}"
    coming = pod["status"].get("nominatedNodeName") or seen.events_of(pod, "TriggeredScaleUp|Nominated")
    # A node that starts, stops or is drained will be back in a while, or its pods will be elsewhere.
    healing = re.search(r"node\.kubernetes\.io/|were unschedulable", reasons) or seen.room_to_come
    patience = None if coming or healing else SCHEDULING_SECONDS
    return Finding("unschedulable", f"pod {name} fits no node: {shorten(reasons)}: {fix}", pod=name, patience=patience)


def _requested(pod: Json, resource: str) -> str:
    """Return how much of `resource` the containers of `pod` request."""
    amounts = [one.get("resources", {}).get("requests", {}).get(resource) for one in pod["spec"]["containers"]]
    return " + ".join(str(amount) for amount in amounts if amount)


def claim_finding(seen: Observation, pod: Json) -> Finding | None:
    """Return what keeps away the storage that `pod` claims."""
    names = [
        one["persistentVolumeClaim"]["claimName"]
        for one in pod["spec"].get("volumes", ())
        if "persistentVolumeClaim" in one
    ]
    findings = (_unbound(seen, claim) for claim in seen.claims if named(claim) in names)
    return next((replace(one, pod=named(pod)) for one in findings if one), None)


def unbound(seen: Observation) -> list[Finding]:
    """Return a finding for each claim whose storage is missing, whoever uses it."""
    return [one for claim in seen.claims if (one := _unbound(seen, claim))]


def _unbound(seen: Observation, claim: Json) -> Finding | None:
    events = seen.events_of(claim, "ProvisioningFailed|FailedBinding|VolumeMismatch")
    phase = claim["status"].get("phase", "Pending")
    if phase == "Bound" or (not events and phase != "Lost"):
        return None
    cause = one_line(events[-1].get("message", "")) if events else "its volume is gone"
    line = f"PersistentVolumeClaim {named(claim)} is {phase.lower()}: {shorten(cause)}"
    fix = "bring its volume back, or restore a backup into a new claim" if phase == "Lost" else ""
    if "storageclass" in cause:
        wanted = claim["spec"].get("storageClassName")
        fix = f"create the storage class {wanted}, or name one of `kubectl get storageclass`"
    permanent = fix or "no storage class is set" in cause
    return Finding("claim", f"{line}{f': {fix}' if fix else ''}", patience=SYNC_SECONDS if permanent else None)


def node_lost(seen: Observation, pod: Json) -> Finding | None:
    """Return a finding where the node of `pod` is away, otherwise None."""
    # It is away where the pod says not ready while its containers say ready, or where the node says nothing at all.
    ready = condition(pod, "Ready")
    events = seen.events_of(pod, "NodeNotReady")
    unknown = ready.get("status") == "Unknown" or pod["status"].get("reason") == "NodeLost"
    contradicts = ready.get("status") == "False" and all(
        status.get("ready") for _, status, ends in container_pairs(pod) if not ends
    )
    if not unknown and not (events and contradicts and pod["status"].get("containerStatuses")):
        return None
    node = pod["spec"].get("nodeName", "?")
    line = f"pod {named(pod)}: its node {node} does not answer: `kubectl describe node {node}`"
    return Finding("node", line, pod=named(pod), patience=None)


def eviction(pod: Json, how_many: int) -> Finding:
    """Return why its node evicted `pod`; for good where `how_many` evicted pods are `EVICTIONS` or more."""
    status = pod["status"]
    line = f"pod {named(pod)}: {status['reason']}: {shorten(one_line(status.get('message', '')))}"
    return Finding("evicted", line, pod=named(pod), patience=0.0 if how_many >= EVICTIONS else None)
