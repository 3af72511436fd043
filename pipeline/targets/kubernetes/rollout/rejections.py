"""Why the API server refuses objects, and the fix: quotas, Pod Security, limits, admission. Pure, by its words."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.system.text import shorten
from pipeline.targets.kubernetes.rollout.findings import SYNC_SECONDS, Finding, one_line
from pipeline.targets.kubernetes.rollout.observation import Json, Observation, condition, named

__all__ = ["refusal", "refused", "refused_of_job"]

HOOK_SECONDS = 20  # an admission webhook may be in a rollout itself


def refused(seen: Observation, replicaset: Json) -> list[Finding]:
    """Return why pods of `replicaset` are not even created; empty where they are."""
    # By its condition: the events of a ReplicaSet that is used again may be old.
    failure = condition(replicaset, "ReplicaFailure")
    if failure.get("status") != "True" or failure.get("reason") != "FailedCreate":
        return []
    wanted, there = replicaset["spec"].get("replicas", 0), replicaset.get("status", {}).get("replicas", 0)
    if there >= wanted:
        return []
    return [_patient(seen, refusal(failure.get("message", ""), f"pods of ReplicaSet {named(replicaset)}"))]


def refused_of_job(seen: Observation, job: Json) -> list[Finding]:
    """Return why the pod of `job` is not even created; empty where it is."""
    said = [event.get("message", "") for event in seen.events_of(job, "FailedCreate")]
    if not said or seen.owned(seen.pods, job):
        return []
    return [_patient(seen, refusal(said[-1], f"pods of Job {named(job)}"))]


def _patient(seen: Observation, finding: Finding) -> Finding:
    """Return `finding`, which may heal where it is a quota's and a pod leaves."""
    return replace(finding, patience=None) if finding.kind == "quota" and seen.room_to_come else finding


def refusal(message: str, what: str) -> Finding:
    """Return why the API server refuses `what` ("pods of …"), by the `message` of an event, a condition or kubectl."""
    message = one_line(message)
    for kind, pattern, fix, patience in _REFUSALS:
        if match := re.search(pattern, message):
            words = {key: value for key, value in match.groupdict().items() if value}
            return Finding(kind, f"{what} are refused: {fix.format(**words)}", patience=patience)
    return Finding("admission", f"{what} are refused: {shorten(message)}", patience=HOOK_SECONDS)


_REFUSALS: tuple[tuple[str, str, str, float | None], ...] = (
    (
        "quota",
        r"exceeded quota: (?P<name>[^,]+), requested: (?P<more>.*?), used: (?P<used>.*?), limited: (?P<limited>.*)",
        "quota {name} allows {limited}, {used} are used and {more} more needed: raise it, or lower requests",
        0.0,
    ),
    ("quota", r"failed quota: (?P<name>[^:]+): (?P<must>.*)", "quota {name}: {must}: set it in the overlay", 0.0),
    (
        "admission",
        r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.*)',
        "Pod Security {level}: {why}: fix securityContext",
        0.0,
    ),
    (
        "limits",
        r"is forbidden: (?P<why>\[?(?:maximum|minimum|max |cpu max|memory max).*)",
        "the namespace's LimitRange: {why}: fix resources",
        0.0,
    ),
    (
        "config",
        r'serviceaccount "(?P<name>[^"]+)" not found',
        "there is no ServiceAccount {name}: create it, or fix serviceAccountName",
        SYNC_SECONDS,
    ),
    (
        "admission",
        r'admission webhook "(?P<name>[^"]+)" denied the request:? ?(?P<why>.*)',
        "admission webhook {name} says: {why}",
        0.0,
    ),
    (
        "admission",
        r"ValidatingAdmissionPolicy '(?P<name>[^']+)' .*?denied request: (?P<why>.*)",
        "ValidatingAdmissionPolicy {name} says: {why}",
        0.0,
    ),
    (
        "admission",
        r'failed calling webhook "(?P<name>[^"]+)": (?P<why>.*)',
        "admission webhook {name} does not answer ({why}): fix it, or its failurePolicy",
        HOOK_SECONDS,
    ),
    (
        "admission",
        r"(?P<why>.*(?:etcdserver|Internal error|connection refused|timed? ?out).*)",
        "{why}: Kubernetes keeps trying",
        None,
    ),
)
