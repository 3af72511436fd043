"""The drill on Kubernetes: what its pod's status says, and what a deploy brings for it."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any, cast

import pytest

from pipeline.config.requests import parse_requests
from pipeline.engines.kubectl import Kubectl, Object
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.targets.kubernetes.drill import drill_job, drilled, newest_drill, run_drill, smoke_config
from tests.pipeline.proof.servers import LIST, MAKE

RESTORED = {"name": "20261128T020000Z-4fa01c", "rows": 118, "seconds": 2.5, "age": 5400, "migrated": ["0004"]}
SMOKED = {"sent": 4, "failed": []}
CRON: Object = {
    "metadata": {"name": "drill", "labels": {"app.kubernetes.io/managed-by": "slipway"}},
    "kind": "CronJob",
    "spec": {
        "schedule": "41 3 * * 0",
        "jobTemplate": {
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "spec": {
                        "initContainers": [
                            {"name": "postgres", "args": ["-c", "fsync=off"]},
                            {"name": "restore", "args": ["drill", "newest"]},
                            {"name": "backend"},
                        ],
                        "containers": [{"name": "smoke"}],
                    }
                },
            }
        },
    },
}


def at(second: int) -> str:
    return f"2026-11-28T03:41:{second:02}Z"


def ended(name: str, begin: int, end: int, message: str = "", code: int = 0) -> Object:
    reason = "Error" if code else "Completed"
    state = {"startedAt": at(begin), "finishedAt": at(end), "message": message, "exitCode": code, "reason": reason}
    return {"name": name, "state": {"terminated": state}}


def pod(phase: str, *containers: Object, name: str = "drill-1", **status: Any) -> Object:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "creationTimestamp": at(0), "ownerReferences": [{"kind": "Job", "uid": name}]},
        "status": {
            "phase": phase,
            "startTime": at(1),
            "initContainerStatuses": [one for one in containers if one["name"] != "smoke"],
            "containerStatuses": [one for one in containers if one["name"] == "smoke"],
            "conditions": [],
            **status,
        },
    }


POSTGRES = {"name": "postgres", "state": {"terminated": {"exitCode": 137, "startedAt": at(2), "finishedAt": at(40)}}}
RESTORE = ended("restore", 4, 9, json.dumps({"drilled": RESTORED}))
GOOD = pod("Succeeded", POSTGRES, RESTORE, ended("smoke", 10, 12, json.dumps(SMOKED)))


class TestDrilled:
    def test_says_what_was_restored_and_asked_and_how_long_it_took(self) -> None:
        """Until the replica had answered; that the stores beside it were killed then is nobody's fault."""
        found = drilled(GOOD)
        assert found.problem is None
        assert found.facts() == {"drilled": RESTORED, "sent": 4, "seconds": {"restore": 5.0, "try": 2.0}}
        report = found.report("kind")
        assert {name: report[name] for name in ("verdict", "reason", "rpo_seconds", "rto_seconds", "rows", "sent")} == {
            "verdict": "proved", "reason": None, "rpo_seconds": 5400, "rto_seconds": 11.0, "rows": 118, "sent": 4,
        }  # fmt: skip
        assert (report["environment"], report["finished"]) == ("kind", "2026-11-28T03:41:12+00:00")

    @pytest.mark.parametrize(
        ("found", "problem"),
        [
            (
                pod("Failed", ended("restore", 4, 9, "50 % of 2 MB\nthe backup is not whole: use another one\n", 1)),
                "restore: the backup is not whole: use another one",
            ),
            (pod("Failed", ended("restore", 4, 9, code=137)), "restore: Error"),
            (
                pod("Failed", RESTORE, ended("smoke", 9, 12, json.dumps({"sent": 4, "failed": ["GET /x: 500"]}), 1)),
                "smoke: GET /x: 500",
            ),
            (
                pod("Failed", RESTORE, reason="Evicted", message="The node was low on resource: ephemeral-storage."),
                "it broke off after restore: The node was low on resource: ephemeral-storage.",
            ),
            (pod("Failed", reason="DeadlineExceeded"), "it broke off after nothing: DeadlineExceeded"),
        ],
    )
    def test_says_what_failed(self, found: Object, problem: str) -> None:
        """By the step, in its last words."""
        assert drilled(found).problem == problem
        assert drilled(found).report("kind")["verdict"] == "failed"


class Cluster:
    """kubectl, with the drill's pods from one question to the next."""

    def __init__(self, *seen: list[Object]) -> None:
        self.seen = list(seen)
        self.applied: list[Object] = []
        self.deleted: list[str] = []

    def apply(self, objects: list[Object]) -> None:
        self.applied += objects

    def get(self, *_: str) -> list[Object]:
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]

    def ask(self, verb: str, *arguments: str, **_: object) -> str:
        if verb == "delete":
            self.deleted.append(arguments[1])
            return ""
        container = next(one.partition("=")[2] for one in arguments if one.startswith("--container"))
        return f"2026-11-28T03:41:05Z {container} goes on\n"


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock of which each look costs a second."""
    clock = iter(range(10_000))
    monkeypatch.setattr("pipeline.targets.kubernetes.drill.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("pipeline.targets.kubernetes.drill.time.sleep", lambda _: None)
    return iter([None])


def run(cluster: Cluster, said: list[str] | None = None) -> Any:
    told = (said if said is not None else []).append
    return run_drill(cast("Kubectl", cluster), CRON, "drill-x", RESTORED["name"], told)  # type: ignore[arg-type]


RUNNING = pod("Pending", {"name": "restore", "state": {"running": {}}})


class TestRunDrill:
    def test_tells_each_step_and_leaves_its_record(self) -> None:
        """The Job stays, for whoever asks when the last one was."""
        said: list[str] = []
        cluster = Cluster([], [pod("Pending")], [RUNNING], [GOOD])
        assert run(cluster, said).restored == RESTORED
        assert said == ["restore goes on", "smoke goes on"]
        assert cluster.deleted == []

    def test_is_removed_where_it_does_not_start_or_nobody_waits(self) -> None:
        """Nothing would end it before its deadline."""
        cluster = Cluster([pod("Pending", conditions=[{"status": "False", "message": "0/3 nodes are available"}])])
        with pytest.raises(DeployFailed, match="did not start within 300 s: 0/3 nodes are available"):
            run(cluster)
        assert cluster.deleted == ["drill-x"]

    def test_says_that_its_pod_went_away(self) -> None:
        """Nothing is known of the backup then."""
        with pytest.raises(SlipwayError, match="the drill's pod was removed while it ran"):
            run(Cluster([RUNNING], []))

    def test_takes_the_backup_that_was_asked_for(self) -> None:
        """And is kept for two weeks."""
        job = drill_job(CRON, "drill-x", "NAME")
        containers = job["spec"]["template"]["spec"]["initContainers"]
        assert [one.get("args") for one in containers] == [["-c", "fsync=off"], ["drill", "NAME"], None]
        assert job["spec"]["ttlSecondsAfterFinished"] == 14 * 86_400
        assert job["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "slipway"}


class TestNewestDrill:
    def test_is_the_one_that_ended_last(self) -> None:
        """One that runs has no result yet."""
        later = pod("Failed", ended("restore", 30, 40, "away", 1), name="drill-2")
        found = newest_drill(cast("Kubectl", Cluster([later, GOOD, pod("Pending")])))
        assert found
        assert (found.pod, found.problem) == ("drill-2", "restore: away")
        assert newest_drill(cast("Kubectl", Cluster([]))) is None

    @pytest.mark.parametrize(
        ("condition", "problem"),
        [
            ({"type": "Complete"}, None),
            ({"type": "Failed", "message": "Job was active longer"}, "its pod is gone: Job was active longer"),
        ],
    )
    def test_is_known_by_its_job_where_its_pod_is_gone(self, condition: Object, problem: str | None) -> None:
        """With its node, for example: whether it passed is known, and not what it restored."""
        status = {"startTime": at(20), "conditions": [{"status": "True", "lastTransitionTime": at(50), **condition}]}
        job = {"kind": "Job", "metadata": {"name": "drill-3", "uid": "drill-3"}, "status": status}
        with_pod = {**job, "metadata": {"name": "drill-1", "uid": "drill-1"}}
        found = newest_drill(cast("Kubectl", Cluster([GOOD, job, with_pod])))
        assert found
        assert (found.pod, found.problem, found.report("kind")["rto_seconds"]) == ("drill-3", problem, 30.0)
        assert newest_drill(cast("Kubectl", Cluster([{**job, "status": {"startTime": at(1)}}]))) is None


class TestSmokeConfig:
    def test_has_the_requests_of_the_release_for_its_drill(self) -> None:
        """Asked of the replica in the same pod; its result is what the pod's status shows."""
        [config] = smoke_config([CRON], parse_requests([LIST, MAKE]))
        assert (config["kind"], config["metadata"]["name"]) == ("ConfigMap", "drill-smoke")
        packed = zipfile.ZipFile(io.BytesIO(base64.b64decode(config["binaryData"]["smoke.pyz"])))
        orders = json.loads(packed.read("orders.json"))
        assert [one["name"] for one in orders["requests"]] == ["list", "make"]
        assert (orders["base"], orders["record"]) == ("http://127.0.0.1:8000", "/dev/termination-log")
        assert orders["token"] == ["/run/trial/SERVICE_TOKEN"]

    def test_is_not_there_without_a_drill(self) -> None:
        """Nobody would mount it."""
        assert smoke_config([{"kind": "CronJob", "metadata": {"name": "backup"}}], parse_requests([LIST])) == []
