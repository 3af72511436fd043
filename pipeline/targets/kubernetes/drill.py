"""The drill in the cluster: a pod of component `backup` restores, migrates and asks; its own status is the record.

Each step is a container, and what it found is its termination message. So the pod needs no account, and no way to the
API server: who restores what may come from anywhere should have neither.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.config.requests import RequestSpec
from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.proof.packed import pack_smoke
from pipeline.targets.common.container import BACKEND_PORT
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.kubernetes.followed import START_SECONDS, TICK_SECONDS, Lines
from pipeline.targets.kubernetes.job import job_from, why_waiting

__all__ = ["DRILL", "Drilled", "drill_job", "drilled", "newest_drill", "run_drill", "smoke_config"]

DRILL = "drill"  # its CronJob
STEPS = RESTORE, SMOKE = "restore", "smoke"  # the containers of the pod, in their order
TOKEN = "/run/trial/SERVICE_TOKEN"  # noqa: S105 - a path
RECORD = "/dev/termination-log"
READY_SECONDS = 120  # of the replica
TRIES = 2
COMPONENT = "app.kubernetes.io/component=drill"
KEPT_SECONDS = 14 * 24 * 3600  # a drill on demand is a record, too
REMOVE_SECONDS = 60


@dataclass(frozen=True)
class Drilled:
    """What the status of a pod says of its drill. `problem`: why it failed; None where the backup is good."""

    pod: str
    started: datetime
    finished: datetime
    restored: Mapping[str, Any]
    sent: int
    seconds: dict[str, float]
    problem: str | None

    def facts(self) -> dict[str, Any]:
        """Return what the role `Backups` says of a drill."""
        seconds = {"restore": self.seconds.get(RESTORE, 0.0), "try": self.seconds.get(SMOKE, 0.0)}
        return {"drilled": self.restored, "sent": self.sent, "seconds": seconds}

    def report(self, environment: str) -> dict[str, Any]:
        """Return it as a report of `nox -s drill` on `environment` would."""
        facts = self.facts()
        return {
            "kind": "drill",
            "environment": environment,
            "target": "kubernetes",
            "verdict": "failed" if self.problem else "proved",
            "reason": self.problem,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "rpo_seconds": self.restored.get("age"),
            "rto_seconds": (self.finished - self.started).total_seconds(),
            "rows": self.restored.get("rows"),
            "migrated": self.restored.get("migrated", []),
            "sent": self.sent,
            "seconds": facts["seconds"],
        }


def smoke_config(manifests: Iterable[Object], requests: Sequence[RequestSpec]) -> list[Object]:
    """Return the ConfigMap with the smoke test of a release's `requests`, which a drill among `manifests` mounts."""
    for one in manifests:
        if (one["kind"], name_of(one)) == ("CronJob", DRILL):
            base = f"http://127.0.0.1:{BACKEND_PORT}"
            archive = pack_smoke(requests, base, [TOKEN], wait=READY_SECONDS, tries=TRIES, record=RECORD)
            metadata = {"name": f"{DRILL}-{SMOKE}", "labels": one["metadata"].get("labels", {})}
            data = {"smoke.pyz": base64.b64encode(archive).decode()}
            return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": data}]
    return []


def drill_job(cron: Object, name: str, backup: str) -> Object:
    """Return the Job `name` of the CronJob `cron` that restores `backup` instead of the newest one."""
    job = job_from(cron, name)
    job["spec"]["ttlSecondsAfterFinished"] = KEPT_SECONDS
    restore = next(one for one in job["spec"]["template"]["spec"]["initContainers"] if one["name"] == RESTORE)
    restore["args"] = [*restore["args"][:-1], backup]
    return job


def run_drill(kubectl: Kubectl, cron: Object, name: str, backup: str, told: Callable[[str], None]) -> Drilled:
    """Run one drill of `backup` as the Job `name`, which stays as a record. `told` gets the lines of each step.

    Raise `SlipwayError` where it could not be tried, or where `told` does; then the Job is removed.
    """
    kubectl.apply([drill_job(cron, name, backup)])
    try:
        pod = _wait(kubectl, name, told)
    except BaseException:
        kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", timeout=REMOVE_SECONDS)
        raise
    return drilled(pod)


def newest_drill(kubectl: Kubectl) -> Drilled | None:
    """Return the drill that ended last, None where the cluster knows of none."""
    found = kubectl.get("jobs,pods", f"--selector={COMPONENT}")
    pods = [one for one in found if one["kind"] == "Pod"]
    ended = [drilled(pod) for pod in pods if pod["status"].get("phase") in ("Succeeded", "Failed")]
    kept = {ref["uid"] for pod in pods for ref in pod["metadata"].get("ownerReferences", ())}
    jobs = [one for one in found if one["kind"] == "Job" and one["metadata"]["uid"] not in kept]
    ended += filter(None, map(_without_pod, jobs))
    return max(ended, key=lambda one: one.finished, default=None)


def _without_pod(job: Object) -> Drilled | None:
    """Return what a `job` says whose pod went away, with its node perhaps; None where it has not ended."""
    said = {one["type"]: one for one in job.get("status", {}).get("conditions", ()) if one["status"] == "True"}
    end = said.get("Complete") or said.get("Failed")
    if end is None:
        return None
    problem = None if "Complete" in said else f"its pod is gone: {end.get('message') or end.get('reason')}"
    began, over = (_time(text) for text in (job["status"]["startTime"], end["lastTransitionTime"]))
    return Drilled(name_of(job), began, over, restored={}, sent=0, seconds={}, problem=problem)


def drilled(pod: Object) -> Drilled:
    """Return what the status of the ended `pod` says. Raise `SlipwayError` where it is no drill's."""
    states = {
        one["name"]: one["state"]["terminated"]
        for kind in ("initContainerStatuses", "containerStatuses")
        for one in pod["status"].get(kind) or ()
        if "terminated" in one.get("state", {})
    }
    steps = {step: states[step] for step in STEPS if step in states}
    said = {step: str(end.get("message", "")).strip() for step, end in steps.items()}
    began = _time(pod["status"].get("startTime") or pod["metadata"]["creationTimestamp"])
    ends = [_time(end["finishedAt"]) for end in steps.values() if end.get("finishedAt")]
    return Drilled(
        pod=name_of(pod),
        started=began,
        finished=max(ends, default=began),
        restored=_object(said.get(RESTORE, "")).get("drilled", {}),
        sent=int(_object(said.get(SMOKE, "")).get("sent", 0)),
        seconds={step: _seconds(end) for step, end in steps.items() if end.get("startedAt")},
        problem=_problem(pod, steps, said),
    )


def _seconds(end: Mapping[str, Any]) -> float:
    return (_time(end["finishedAt"]) - _time(end["startedAt"])).total_seconds()


def _problem(pod: Object, steps: Mapping[str, Mapping[str, Any]], said: Mapping[str, str]) -> str | None:
    for step, end in steps.items():
        if end.get("exitCode"):
            failed = _object(said[step]).get("failed", ())
            why = "; ".join(failed) or (telling_line(said[step].splitlines()) if said[step] else end.get("reason"))
            return f"{step}: {why or 'it said nothing'}"
    if pod["status"].get("phase") == "Succeeded" and steps.keys() == {*STEPS}:
        return None
    why = pod["status"].get("message") or pod["status"].get("reason") or why_waiting(pod)
    return f"it broke off after {', '.join(steps) or 'nothing'}: {why}"


def _wait(kubectl: Kubectl, job: str, told: Callable[[str], None]) -> Object:
    """Return the pod of `job` once it has ended."""
    begun, lines, running = time.monotonic(), dict[str, Lines](), False
    while True:
        pods = kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={job}")
        pod = pods[0] if pods else None
        if pod:
            for step in STEPS:
                lines.setdefault(step, Lines(kubectl, name_of(pod), step, told))
            now = [step for step in STEPS if _begun(pod, step)]
            for step in now[-2:]:  # the one before may have said more since the last time
                lines[step].hand_on()
            running = running or bool(now)
            if pod["status"].get("phase") in ("Succeeded", "Failed"):
                return pod
        if not running and time.monotonic() - begun > START_SECONDS:
            raise DeployFailed(f"the drill did not start within {START_SECONDS} s: {why_waiting(pod)}")
        if running and pod is None:
            raise SlipwayError("the drill's pod was removed while it ran (a drained node, its time, by hand?)")
        time.sleep(TICK_SECONDS)


def _begun(pod: Object, step: str) -> bool:
    statuses = [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]
    return any(one["name"] == step and one["state"].keys() & {"running", "terminated"} for one in statuses)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
