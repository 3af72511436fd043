"""How far a rollout is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.kubectl import Kubectl, Object
from pipeline.targets.common.diagnosis import SILENT
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.objects import leftovers, marked
from pipeline.targets.kubernetes.rollout.findings import Finding
from pipeline.targets.kubernetes.rollout.observation import Observation
from pipeline.targets.kubernetes.rollout.watch import RolloutWatch, current_pods, standing
from pipeline.targets.kubernetes.secret import SECRETS_ANNOTATION

GONE = "unable to retrieve container logs for containerd://af3663265d08a0ead9f2fa4773085f1370805da38fcacb60ace23d283dd76d8b"
READY = [{"type": "Ready", "status": "True"}]


def owned(kind: str, name: str, owner: str, **metadata: Any) -> dict[str, Any]:
    """An object that OWNER made."""
    return {"kind": kind, "metadata": {"name": name, "uid": name, "ownerReferences": [{"uid": owner}], **metadata}}


def pod(name: str, owner: str, *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    """A pod that runs."""
    status = {"phase": "Running", "conditions": READY if ready else []}
    return {**owned("Pod", name, owner, **metadata), "status": status}


def seen(*pods: dict[str, Any], **status: int) -> Observation:
    """A Deployment of two that goes from `old` to `new`."""
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "backend", "uid": "backend", "generation": 2},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 2, "replicas": len(pods), **status},
    }
    revisions = {"old": "1", "new": "2"}
    sets = [
        {**owned("ReplicaSet", name, "backend", annotations={"deployment.kubernetes.io/revision": number}), "spec": {}}
        for name, number in revisions.items()
    ]
    return Observation.of([deployment, *sets, *pods])


class TestStanding:
    def test_is_done_when_new_pods_are_all_there_is(self) -> None:
        """Ready, available, and nobody else left."""
        now = standing(seen(pod("a", "new"), pod("b", "new"), updatedReplicas=2, availableReplicas=2))
        assert (now.done, now.line) == (True, "2 of 2 new pods ready")

    def test_waits_for_an_old_pod_that_still_drains(self) -> None:
        """Kubernetes counts it no more, and it still answers."""
        leaving = pod("c", "old", deletionTimestamp="2026-11-24T17:00:00Z")
        now = standing(
            seen(pod("a", "new"), pod("b", "new"), leaving, replicas=2, updatedReplicas=2, availableReplicas=2)
        )
        assert (now.done, now.line) == (False, "2 of 2 new pods ready, 1 old left")

    def test_waits_until_ready_pods_count_as_available(self) -> None:
        """MinReadySeconds are not over."""
        now = standing(seen(pod("a", "new"), pod("b", "new"), updatedReplicas=2, availableReplicas=1))
        assert now.line == "2 of 2 new pods ready, waiting until they are available"
        assert not now.done

    def test_counts_no_pod_that_is_not_ready(self) -> None:
        """One is."""
        assert standing(seen(pod("a", "new"), pod("b", "new", ready=False))).line == "1 of 2 new pods ready"

    def test_knows_when_there_is_nothing(self) -> None:
        """A first deploy."""
        assert standing(Observation.of([])).line == "no Deployment yet"


class TestCurrentPods:
    def test_are_those_of_the_newest_replicaset(self) -> None:
        """By revision: a rollback takes an old one again."""
        assert [one["metadata"]["name"] for one in current_pods(seen(pod("a", "old"), pod("b", "new")))] == ["b"]


def thing(kind: str, name: str, manager: str = "slipway", **labels: str) -> Object:
    """An object that MANAGER applied."""
    return {"kind": kind, "metadata": {"name": name, "labels": labels, "managedFields": [{"manager": manager}]}}


class TestToldByALog:
    BEGUN = '{"level": "info", "event": "starting"}'
    WHY = "LOG_LEVEL: LOUD is none of …"

    @pytest.mark.parametrize("run", [" --previous", ""])
    @pytest.mark.parametrize(
        ("logs", "line"),
        [
            ((GONE, WHY), f"it ended: {WHY}"),  # a kubelet says that it has no log as if it were one
            (("", WHY), f"it ended: {WHY}"),
            ((BEGUN, WHY), f"it ended: {WHY}"),
            ((WHY, "of another time"), f"it ended: {WHY}"),
            ((BEGUN, GONE), f"it ended: {SILENT}"),
            ((GONE, GONE), "it ended"),
        ],
    )
    def test_of_whichever_run_says_why(
        self, run: str, logs: tuple[str, str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A container that starts again between two looks moves its runs up."""
        said = f"case \"$*\" in *\"backend{run} --tail\"*) echo '{logs[0]}' ;; *) echo '{logs[1]}' ;; esac"
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n{said}\n")
        (tmp_path / "kubectl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        found = Finding("crash", "it ended", "backend-1", "backend", wants_log=True, previous=bool(run))
        assert RolloutWatch(Kubectl("kind-slipway", "slipway"))._told(found).line == line


class TestLeftovers:
    def test_are_what_deploys_applied_and_no_release_has(self) -> None:
        """An administrator's object, a record and what is needed stay; so does whatever holds data."""
        gone, needed = thing("Service", "gone"), thing("Service", "needed")
        record = thing("ConfigMap", "slipway-release-1")
        record["metadata"]["labels"]["slipway/record"] = "1"
        facts = thing("ConfigMap", "deploy-facts")
        facts["metadata"]["labels"]["slipway/facts"] = "true"
        live = [gone, needed, record, facts, thing("ConfigMap", "theirs", "kubectl"), thing("StatefulSet", "postgres")]
        assert leftovers(live, [key_of(needed)], {"Service", "ConfigMap"}) == [gone]


class TestMarked:
    def test_leaves_the_release_as_it_is(self) -> None:
        """What is recorded holds no trace of a secret."""
        deployment = {"kind": "Deployment", "metadata": {"name": "backend"}, "spec": {"template": {"metadata": {}}}}
        [applied] = marked([deployment], {"backend": "0123456789ab"})
        assert applied["spec"]["template"]["metadata"]["annotations"] == {SECRETS_ANNOTATION: "0123456789ab"}
        assert deployment["spec"] == {"template": {"metadata": {}}}
