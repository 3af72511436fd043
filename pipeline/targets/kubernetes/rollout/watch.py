"""Watching Kubernetes roll out the service: how far it is, what stops it, and who serves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pipeline.engines.kubectl import Kubectl, Unreachable
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.releases.model import Replica, short
from pipeline.system.waiting import Deadline
from pipeline.targets.common.diagnosis import RECENT_SECONDS, SILENT
from pipeline.targets.kubernetes.objects import SERVICE
from pipeline.targets.kubernetes.release import RELEASE_ANNOTATION, release_of
from pipeline.targets.kubernetes.rollout.autoscaler import scaling_findings
from pipeline.targets.kubernetes.rollout.diagnosis import (
    Patience,
    diagnose,
    diagnose_job,
    ends,
    examine_pods,
    log_arguments,
    restarts,
    summary,
    with_log,
)
from pipeline.targets.kubernetes.rollout.findings import Finding
from pipeline.targets.kubernetes.rollout.observation import (
    PODS,
    RESOURCES,
    Json,
    Observation,
    condition,
    named,
    superseded,
)
from pipeline.targets.kubernetes.rollout.scheduling import unbound
from pipeline.targets.kubernetes.secret import SECRETS_ANNOTATION

__all__ = [
    "RolloutWatch",
    "Standing",
    "current_pods",
    "is_ready",
    "replica",
    "secrets_mark",
    "service_pods",
    "standing",
    "workers",
]

TICK_SECONDS = 0.5
LOG_GONE = "unable to retrieve container logs"  # what a kubelet answers in place of the log


@dataclass(frozen=True)
class Standing:
    """How far a rollout is. `done`: only the new pods are left; `line`: the same in words."""

    done: bool
    line: str


@dataclass(frozen=True)
class RolloutWatch:
    """The Deployment of the service in a namespace."""

    kubectl: Kubectl
    _ends: dict[tuple[str, str], int] = field(default_factory=dict)  # how often each container had ended before

    def observe(self) -> Observation:
        """Return what the API server has of the namespace now."""
        return Observation.of(self.kubectl.get(RESOURCES))

    def glance(self) -> Observation:
        """Return the pods and what owns them."""
        return Observation.of(self.kubectl.get(PODS))

    def wait(self, release: str, watch: Callable[[str], None], deadline: Deadline) -> list[Json]:
        """Wait until only new pods are left, all of them ready, and return them.

        Raise `DeployFailed` with the cause and the fix as soon as it is certain that this will not happen, and at the
        `deadline`.
        """
        patience, first = Patience(), True
        while True:
            late = deadline.left() < 0
            try:
                seen = self.observe()
            except Unreachable as away:
                if late:
                    raise
                watch(away.problems[0])
                time.sleep(TICK_SECONDS)
                continue
            if first:  # what is there now has not had time to end since the apply
                self._ends.clear()
                self._ends.update(ends(seen))
            names, first = [SERVICE, *workers(seen, release)], False
            now = _together({name: standing(seen, name) for name in names})
            if now.done:
                return current_pods(seen)
            found = (one for name in names for one in diagnose(seen, release, name))
            findings = patience.settle(map(self._told, found), time.monotonic())
            if findings and findings[0].certain:
                raise DeployFailed(f"release {short(release)}: {findings[0].line}")
            if late:
                why = findings[0].line if findings else summary(seen)
                raise DeployFailed(f"release {short(release)} did not get ready in time ({now.line}): {why}")
            watch(f"{now.line}{f' · {findings[0].line}' if findings else ''}")
            time.sleep(TICK_SECONDS)

    def examine(self, name: str, patience: Patience) -> tuple[str | None, Json | None, tuple[Finding, ...]]:
        """Return why the Job `name` has failed, its pod, and what stops that, by the `patience` of the looks before.

        Each may be missing.
        """
        seen = self.observe()
        job: Json = next((one for one in seen.jobs if named(one) == name), {})
        pod = next(iter(seen.owned(seen.pods, job)), None) if job else None
        failed = condition(job, "Failed")
        gone = "its pod was removed or evicted, or its time was over"
        ended = f"{gone}: {failed.get('message', '')}" if failed.get("status") == "True" else None
        return ended, pod, patience.settle(map(self._told, diagnose_job(seen, name)), time.monotonic())

    def findings(self) -> list[str]:
        """Return what is wrong with any pod of the namespace, its storage or its autoscaler, one line each."""
        seen = Observation.of(self.kubectl.get(f"{RESOURCES},horizontalpodautoscalers"))
        pods = [pod for pod in seen.pods if not superseded(pod, seen.pods)]
        findings = [*examine_pods(seen, pods), *diagnose(seen), *unbound(seen)]
        findings += [one for name in workers(seen) for one in diagnose(seen, name=name)]
        since = time.time() - RECENT_SECONDS
        findings += [one for name in (SERVICE, *workers(seen)) for one in restarts(seen, since=since, name=name)]
        lines = [self._told(one).line for one in findings]
        lines += [line for one in seen.autoscalers for line in scaling_findings(one, time.time())]
        return list(dict.fromkeys(lines))

    def crashed(self, release: str) -> str | None:
        """Return how a pod of `release` crashed, or was killed for its memory, since `wait` began; otherwise None."""
        seen = self.observe()
        names = [SERVICE, *workers(seen, release)]
        findings = [self._told(one) for name in names for one in restarts(seen, release, self._ends, name=name)]
        return findings[0].line if findings else None

    def _told(self, finding: Finding) -> Finding:
        """Return `finding` with the log that says why, where there is one."""
        if not finding.wants_log:
            return finding
        # Between two looks the container may have started or ended again, which moves its runs up by one: the kubelet
        # then says that it has no log, or returns that of a run that has only begun and cannot say why another ended.
        explained = finding
        for one in (finding, replace(finding, previous=not finding.previous)):
            with contextlib.suppress(SlipwayError):  # a missing log is not a reason to lose the finding
                log = self.kubectl.ask(*log_arguments(one))
                if log.startswith(LOG_GONE):
                    continue
                explained = with_log(finding, log)
                if not explained.line.endswith(SILENT):
                    break
        return explained


def workers(seen: Observation, release: str | None = None) -> list[str]:
    """Return the names of the other Deployments that run the image of `release` (None: of any): its workers."""
    marks = {named(one): release_of(one) for one in seen.deployments}
    return [name for name, mark in marks.items() if name != SERVICE and mark and release in (None, mark)]


def _together(each: Mapping[str, Standing]) -> Standing:
    """Return how far several Deployments are: what is said of a worker has its name."""
    late = [(name, one) for name, one in each.items() if not one.done]
    lines = [one.line if name == SERVICE else f"{name}: {one.line}" for name, one in late]
    return Standing(not late, "; ".join(lines))


def standing(seen: Observation, name: str = SERVICE) -> Standing:
    """Return how far the rollout of the Deployment `name` is, terminating pods of the old release included."""
    deployment = seen.deployment(name)
    if deployment is None:
        return Standing(done=False, line="no Deployment yet")
    newest = seen.newest_replicaset(deployment)
    if newest is None:
        return Standing(done=False, line="waiting for the Deployment's controller")
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    new = [one for one in seen.owned(seen.pods, newest) if not _leaves(one)]
    old = [one for one in service_pods(seen, name) if one not in new]
    ready = sum(1 for one in new if is_ready(one))
    line = f"{ready} of {wanted} new pods ready{f', {len(old)} old left' if old else ''}"
    counts = [status.get(f"{kind}Replicas", 0) for kind in ("updated", "available")]
    done = {ready, status.get("replicas", 0), *counts} == {wanted} and not old
    if ready == wanted and not old and not done:
        line += ", waiting until they are available"
    return Standing(done, line)


def service_pods(seen: Observation, name: str = SERVICE) -> list[Json]:
    """Return the pods of a Deployment that run, are about to run, or are on their way out."""
    deployment = seen.deployment(name)
    sets = seen.owned(seen.replicasets, deployment) if deployment else []
    pods = [pod for one in sets for pod in seen.owned(seen.pods, one)]
    return [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]


def current_pods(seen: Observation) -> list[Json]:
    """Return the pods of the Deployment's newest ReplicaSet that are not on their way out."""
    deployment = seen.deployment(SERVICE)
    newest = seen.newest_replicaset(deployment) if deployment else None
    return [one for one in seen.owned(seen.pods, newest) if not _leaves(one)] if newest else []


def _leaves(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"] or pod["status"].get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Json) -> bool:
    """Return whether `pod` is ready, and not on its way out."""
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def replica(pod: Json, *, current: bool) -> Replica:
    """Return `pod` as `status` shows it."""
    annotations = pod["metadata"].get("annotations", {})
    address = pod["status"].get("podIP")
    started = pod["status"].get("startTime")
    return Replica(
        name=named(pod),
        release=annotations.get(RELEASE_ANNOTATION, ""),
        ready=is_ready(pod),
        state=_state(pod),
        since=datetime.fromisoformat(started).isoformat() if started else None,
        metrics=f"http://{address}:9090/metrics (in the cluster)" if address else None,
        current=current,
    )


def secrets_mark(one: Json) -> str:
    """Return the fingerprint of the secrets that a pod, or a Deployment's template, started with; empty where none."""
    metadata: dict[str, Any] = one["spec"]["template"]["metadata"] if one["kind"] == "Deployment" else one["metadata"]
    return str(metadata.get("annotations", {}).get(SECRETS_ANNOTATION, ""))


def _state(pod: Json) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    statuses: Sequence[dict[str, Any]] = pod["status"].get("containerStatuses", [])
    waiting = [one["state"]["waiting"].get("reason", "") for one in statuses if "waiting" in one.get("state", {})]
    return next(filter(None, waiting), str(pod["status"].get("phase", "Unknown")))
