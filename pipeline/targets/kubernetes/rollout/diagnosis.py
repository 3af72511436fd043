"""Why a rollout does not advance, in one line with its fix: what cannot heal is certain at once, the rest may wait.

Pure functions over what `kubectl get` says each second. Only `Patience` remembers something: since when it has seen
each finding, by this machine's own clock, because the cluster's clock may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pipeline.targets.common.diagnosis import SILENT, telling_line
from pipeline.targets.kubernetes.rollout.containers import (
    FOREIGN_PROGRAM,
    ContainerId,
    container_finding,
    container_id,
    crashes_of,
    end_time,
    ended,
    mount,
    waiting_of,
)
from pipeline.targets.kubernetes.rollout.findings import KINDS, Finding, count_of, one_line, times
from pipeline.targets.kubernetes.rollout.observation import Json, Observation, condition, container_pairs
from pipeline.targets.kubernetes.rollout.rejections import refusal, refused, refused_of_job
from pipeline.targets.kubernetes.rollout.scheduling import claim_finding, eviction, node_lost, unschedulable

__all__ = [
    "Patience",
    "diagnose",
    "diagnose_job",
    "ends",
    "examine_pods",
    "log_arguments",
    "restarts",
    "summary",
    "with_log",
]

# Waiting does not fix these: the program itself is wrong.
PROGRAM_ERRORS = r"(?:ModuleNotFound|Import|Syntax|Indentation|Name)Error\b"
LAST_EVENTS = 5


@dataclass
class Patience:
    """How long each finding has been there without a break."""

    _since: dict[tuple[str, str | None, str | None, float | None], float] = field(default_factory=dict)

    def settle(self, findings: Iterable[Finding], now: float) -> tuple[Finding, ...]:
        """Return the `findings` at `now` (monotonic seconds), first the certain ones, whose patience has run out."""
        found = list(findings)
        # The patience is part of the key: where it was None until now, the seconds count from now.
        keys = [(one.kind, one.pod, one.container, one.patience) for one in found]
        self._since = {key: self._since.get(key, now) for key in keys}
        return _ordered(
            replace(one, patience=0.0) if one.patience and now - self._since[key] >= one.patience else one
            for one, key in zip(found, keys, strict=True)
        )


def diagnose(seen: Observation, release: str | None = None, name: str = "backend") -> tuple[Finding, ...]:
    """Return what stops the rollout of the Deployment `name` to `release` (None: the newest); empty while all is well.

    Pods of older ReplicaSets are not looked at. Certain findings come first, then those that explain more.
    """
    deployment = seen.deployment(name)
    if deployment is None:
        return ()
    made = seen.newest_replicaset(deployment, release)
    progress = condition(deployment, "Progressing")
    findings = []
    if made:
        findings += refused(seen, made) + examine_pods(seen, seen.owned(seen.pods, made))
    elif progress.get("status") == "False" and progress.get("reason") == "ReplicaSetCreateError":
        findings.append(refusal(progress.get("message", ""), f"the ReplicaSet of Deployment {name}"))
    if made and progress.get("reason") == "ProgressDeadlineExceeded":
        seconds = deployment["spec"].get("progressDeadlineSeconds", 600)
        late = f"Deployment {name} made no progress for {seconds} s (its progressDeadlineSeconds)"
        # What was waited for until now has had its time.
        findings = [*(replace(one, patience=0.0) for one in findings), Finding("deadline", late)]
    return _merged(findings)


def diagnose_job(seen: Observation, name: str) -> tuple[Finding, ...]:
    """Return what stops the pod of the Job `name`, as `diagnose` does; empty while all is well."""
    jobs = [one for one in seen.jobs if one["metadata"]["name"] == name]
    found = [refused_of_job(seen, job) + examine_pods(seen, seen.owned(seen.pods, job)) for job in jobs]
    return _merged([one for findings in found for one in findings])


def ends(seen: Observation) -> dict[ContainerId, int]:
    """Return how often each container has ended."""
    return {
        container_id(pod, spec): crashes_of(status) for pod in seen.pods for spec, status, _ in container_pairs(pod)
    }


def restarts(
    seen: Observation,
    release: str | None = None,
    before: Mapping[ContainerId, int] = MappingProxyType({}),
    *,
    since: float = 0.0,
    name: str = "backend",
) -> tuple[Finding, ...]:
    """Return the crashes and OOM kills of the pods of the Deployment `name`, also of those that are ready again.

    This is for a bake time. `before`: what `ends` returned when the deploy began; a rollback may find pods that ended
    long ago, with their node. `since`: seconds since the Unix epoch; what ended earlier is history.
    """
    deployment = seen.deployment(name)
    made = seen.newest_replicaset(deployment, release) if deployment else None
    pods = seen.owned(seen.pods, made) if made else []
    pairs = [(pod, spec, status) for pod in pods for spec, status, ends in container_pairs(pod) if not ends]
    fresh = [one for one in pairs if crashes_of(one[2]) > before.get(container_id(one[0], one[1]), 0)]
    findings = (ended(seen, *one) for one in fresh if end_time(one[2]) >= since)
    return _merged(replace(one, patience=0.0) for one in findings if one)


def examine_pods(seen: Observation, pods: Iterable[Json]) -> list[Finding]:
    """Return the findings of `pods`, whoever made them: a Deployment, a StatefulSet, a Job."""
    staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    pods = [pod for pod in staying if pod["status"].get("phase") != "Succeeded"]
    evicted = [pod for pod in pods if pod["status"].get("phase") == "Failed" and pod["status"].get("reason")]
    findings = [eviction(pod, len(evicted)) for pod in evicted]
    return findings + [one for pod in pods if pod not in evicted and (one := _pod(seen, pod))]


def summary(seen: Observation, name: str = "backend") -> str:
    """Return the last warnings about the Deployment `name` and what it made, newest first.

    They are for what no finding explains.
    """
    deployment = seen.deployment(name)
    if deployment is None:
        return f"there is no Deployment {name}"
    made = seen.newest_replicaset(deployment)
    objects = [deployment, *([made, *seen.owned(seen.pods, made)] if made else [])]
    uids = {item["metadata"]["uid"] for item in objects}
    events = [one for one in seen.events if one.get("type") != "Normal" and one["involvedObject"].get("uid") in uids]
    warnings = [f"{event['reason']}: {one_line(event.get('message', ''))}{times(count_of(event))}" for event in events]
    # `Error: ErrImagePull` and the like repeat in a word what another event explains.
    telling = list(dict.fromkeys(one for one in reversed(warnings) if "Failed: Error: " not in one))
    return (
        "; ".join(telling[:LAST_EVENTS]) or f"there are no warnings about it: see `kubectl describe deployment {name}`"
    )


def with_log(finding: Finding, log: str) -> Finding:
    """Return `finding` with what the `log` of its container says last, which may make it certain."""
    if "exec format error" in log:
        line = f"pod {finding.pod}: {FOREIGN_PROGRAM}"
        return replace(finding, kind="platform", line=line, patience=0.0, wants_log=False)
    cause = telling_line(log.splitlines())
    patience = 0.0 if finding.kind == "crash" and re.match(PROGRAM_ERRORS, cause) else finding.patience
    silent = finding.kind == "probe" and cause == SILENT  # the probe's answer says it already
    return replace(
        finding, line=finding.line if silent else f"{finding.line}: {cause}", patience=patience, wants_log=False
    )


def log_arguments(finding: Finding, lines: int = 200) -> list[str]:
    """Return the arguments of `kubectl` that read the log that `finding` wants."""
    named_container = ["--container", finding.container] if finding.container else []
    previous = ["--previous"] if finding.previous else []
    return ["logs", str(finding.pod), *named_container, *previous, f"--tail={lines}"]


def _ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: (not one.certain, KINDS.index(one.kind))))


def _merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Merge findings that differ by their pods alone into one, which says how many more there are."""
    same: dict[str, list[Finding]] = {}
    for one in _ordered(findings):
        same.setdefault(f"{one.kind} {one.line.replace(one.pod or '', '')}", []).append(one)
    return tuple(
        replace(first, line=f"{first.line} (and {len(more)} more pod{'s' if len(more) > 1 else ''})") if more else first
        for first, *more in same.values()
    )


def _pod(seen: Observation, pod: Json) -> Finding | None:
    """Return the first thing that stops `pod`."""
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return claim_finding(seen, pod) or unschedulable(seen, pod, scheduled)
    if lost := node_lost(seen, pod):
        return lost
    pairs = container_pairs(pod)
    for spec, status, ends in pairs:
        if one := container_finding(seen, pod, spec, status, ends=ends):
            return one
    starting = ("ContainerCreating", "PodInitializing")
    waiting = [status for _, status, _ in pairs if waiting_of(status).get("reason") in starting]
    return mount(seen, pod) if waiting or not pairs else None
