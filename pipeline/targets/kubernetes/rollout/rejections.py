"""Why the API server refuses objects, with the fix: quotas, Pod Security, limits, admission; pure, by its words."""

from __future__ import annotations

import re
from dataclasses import replace

from pipeline.targets.kubernetes.rollout.findings import SYNC_SECONDS, Finding, one_line
from pipeline.targets.kubernetes.rollout.observation import Json, Observation, condition, named

__all__ = ["refusal", "refused"]

HOOK_SECONDS = 20  # an admission webhook may be rolling itself


def refused(seen: Observation, replicaset: Json) -> list[Finding]:
    """That its pods are not even made, by its condition: the events of a ReplicaSet that is taken again may be old."""
    failure = condition(replicaset, "ReplicaFailure")
    if failure.get("status") != "True" or failure.get("reason") != "FailedCreate":
        return []
    wanted, there = replicaset["spec"].get("replicas", 0), replicaset.get("status", {}).get("replicas", 0)
    if there >= wanted:
        return []
    found = refusal(failure.get("message", ""), f"pods of ReplicaSet {named(replicaset)}")
    if found.kind == "quota" and seen.room_to_come:
        found = replace(found, patience=None)
    return [found]


def refusal(message: str, what: str) -> Finding:
    """Why the API server refuses WHAT ("pods of …"), by the MESSAGE of an event, a condition or kubectl."""
    message = one_line(message)
    for kind, pattern, fix, patience in _REFUSALS:
        if found := re.search(pattern, message):
            words = {key: value for key, value in found.groupdict().items() if value}
            return Finding(kind, f"{what} are refused: {fix.format(**words)}", patience=patience)
    return Finding("admission", f"{what} are refused: {message[:300]}", patience=HOOK_SECONDS)


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
        "Pod Security {level}: {why}: mend securityContext",
        0.0,
    ),
    (
        "limits",
        r"is forbidden: (?P<why>\[?(?:maximum|minimum|max |cpu max|memory max).*)",
        "the namespace's LimitRange: {why}: mend resources",
        0.0,
    ),
    (
        "config",
        r'serviceaccount "(?P<name>[^"]+)" not found',
        "there is no ServiceAccount {name}: create it, or mend serviceAccountName",
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
        "admission webhook {name} does not answer ({why}): mend it, or its failurePolicy",
        HOOK_SECONDS,
    ),
    (
        "admission",
        r"(?P<why>.*(?:etcdserver|Internal error|connection refused|timed? ?out).*)",
        "{why}: tried again",
        None,
    ),
)
