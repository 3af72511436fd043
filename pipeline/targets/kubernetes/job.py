"""The migrations of a release as a Job: one shot, from the release's own image, before the rollout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import DeployFailed
from pipeline.targets.diagnosis import telling_line
from pipeline.targets.kubernetes.kubectl import Kubectl, Object, Unreachable, name_of

__all__ = ["MigrateJob", "job_of"]

SECONDS = 600  # migrations have timeouts of their own: lock and statement
STUCK_SECONDS = 60  # a pod that does not even start
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class MigrateJob:
    """The Job that a release's `manifest` describes. `tell` gets where it stands."""

    kubectl: Kubectl
    manifest: Object
    tell: Callable[[str], None]

    def run(self, verb: str, prepare: Sequence[Object] = ()) -> str:
        """Run a VERB of the migrations; gives what it printed. PREPARE: objects that it needs, applied first.

        Raises `DeployFailed` with its last words.
        """
        if prepare:
            self.kubectl.apply(prepare)
        name = f"{name_of(self.manifest)}-{verb}"
        self._delete(name)  # of a deploy that was killed
        self.kubectl.apply([job_of(self.manifest, name, verb)])
        try:
            return self._wait(name, verb)
        finally:
            self._delete(name)

    def _wait(self, name: str, verb: str) -> str:
        started = time.monotonic()
        while True:
            pods = self._ask(f"--selector=batch.kubernetes.io/job-name={name}")
            pod = pods[0] if pods else None
            phase = pod["status"].get("phase") if pod else None
            if pod and phase in ("Succeeded", "Failed"):
                said = self.kubectl.ask("logs", name_of(pod))
                if phase == "Succeeded":
                    return said.strip()
                raise DeployFailed(f"the migrations' Job failed: {telling_line(said.splitlines())}")
            seconds = time.monotonic() - started
            if seconds > (SECONDS if phase == "Running" else STUCK_SECONDS):
                raise DeployFailed(
                    f"the migrations' Job did not {'end' if phase == 'Running' else 'start'}: {_why(pod)}"
                )
            self.tell(f"migrations: {verb}, {phase or 'no pod yet'} for {seconds:.0f} s")
            time.sleep(TICK_SECONDS)

    def _ask(self, selector: str) -> list[Object]:
        try:
            return self.kubectl.get("pods", selector)
        except Unreachable as away:
            self.tell(away.problems[0])
            return []

    def _delete(self, name: str) -> None:
        self.kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", "--wait", timeout=60)


def job_of(manifest: Object, name: str, verb: str) -> Object:
    """MANIFEST under another NAME, with VERB as the argument of its first container."""
    job: Object = json.loads(json.dumps(manifest))
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["args"] = [verb]
    return job


def _why(pod: Object | None) -> str:
    """What a pod that does not run waits for."""
    if pod is None:
        return "no pod was made for it (quota, Pod Security?): `kubectl get events`"
    for one in pod["status"].get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting")
        if waiting:
            return f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": ")[:300]
    conditions = [one.get("message", "") for one in pod["status"].get("conditions", []) if one["status"] != "True"]
    return next(filter(None, conditions), "it says nothing of why")[:300]
