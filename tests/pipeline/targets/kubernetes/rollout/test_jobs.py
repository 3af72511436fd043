"""What stops the pod of a Job, and what a Job's pod means for those that wait for room."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pipeline.targets.kubernetes.rollout.diagnosis import diagnose, diagnose_job
from pipeline.targets.kubernetes.rollout.observation import Observation, superseded
from tests.pipeline.targets.kubernetes.rollout.replay import at, is_new, one


class TestJobs:
    @pytest.mark.parametrize(
        ("name", "certain"), [("backup", False), ("vantage", True), ("watch", True), ("try-backend", True)]
    )
    def test_waits_for_a_quota_while_a_job_runs(self, name: str, *, certain: bool) -> None:
        """Its pod ends by itself; but for the proof's own and a watch's, which stay, and the trial's."""
        items = at("quota", 5)
        pod = copy.deepcopy(one(items, "Pod"))
        pod["metadata"].update(name="job", uid="job", ownerReferences=[{"kind": "Job", "uid": "j"}])
        pod["metadata"]["labels"] = {"app.kubernetes.io/name": name}
        (found,) = diagnose(Observation.of([*items, pod]), "new")
        assert found.certain is certain

    def test_tells_why_a_job_has_no_pod(self) -> None:
        """By the events of this Job, not of one before it that had its name."""
        words = 'is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
        job = {"kind": "Job", "metadata": {"name": "try-backend", "uid": "new"}}
        about = {"kind": "Job", "name": "try-backend", "uid": "new"}
        event: dict[str, Any] = {
            "kind": "Event",
            "metadata": {"name": "e"},
            "reason": "FailedCreate",
            "message": f'Error creating: pods "try-backend-x" {words}',
            "involvedObject": about,
        }
        (found,) = diagnose_job(Observation.of([job, event]), "try-backend")
        assert found.line == (
            "pods of Job try-backend are refused: Pod Security restricted:latest: runAsNonRoot != true:"
            " fix securityContext"
        )
        assert found.certain
        old = {**event, "involvedObject": {**about, "uid": "old"}}
        assert diagnose_job(Observation.of([job, old]), "try-backend") == ()
        assert diagnose_job(Observation.of([event]), "try-backend") == ()

    def test_tells_what_stops_the_pod_of_a_job(self) -> None:
        """As it does for a pod of a Deployment."""
        items = at("crash", 10)
        pod = one(items, "Pod", is_new)
        pod["metadata"]["ownerReferences"] = [{"kind": "Job", "uid": "new"}]
        job = {"kind": "Job", "metadata": {"name": "try-backend", "uid": "new"}}
        (found,) = diagnose_job(Observation.of([job, *items]), "try-backend")
        assert (found.kind, found.pod) == ("crash", pod["metadata"]["name"])


def test_a_failure_that_a_later_run_mended_is_history() -> None:
    """Kubernetes keeps the pods of a CronJob for days; those of another component say nothing."""

    def pod(component: str, phase: str, day: int, owner: str = "Job") -> dict[str, Any]:
        return {
            "metadata": {
                "name": f"{component}-{day}",
                "creationTimestamp": f"2026-11-{day}T02:17:00Z",
                "labels": {"app.kubernetes.io/component": component},
                "ownerReferences": [{"kind": owner, "uid": "u"}],
            },
            "status": {"phase": phase},
        }

    failed = pod("backup", "Failed", 20)
    assert superseded(failed, [failed, pod("backup", "Succeeded", 21)])
    for others in (
        [],
        [pod("backup", "Succeeded", 19)],
        [pod("drill", "Succeeded", 21)],
        [pod("backup", "Failed", 21)],
    ):
        assert not superseded(failed, [failed, *others])
    assert not superseded(pod("backend", "Failed", 20, "ReplicaSet"), [pod("backend", "Succeeded", 21, "ReplicaSet")])
