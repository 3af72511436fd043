"""What stops a rollout, on what a real cluster said of it second by second (`record` made the recordings)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.targets.kubernetes.rollout.diagnosis import (
    Patience,
    diagnose,
    ends,
    examine_pods,
    log_arguments,
    restarts,
    summary,
    with_log,
)
from pipeline.targets.kubernetes.rollout.findings import Finding
from pipeline.targets.kubernetes.rollout.observation import Observation
from pipeline.targets.kubernetes.rollout.rejections import refusal
from tests.pipeline.targets.kubernetes.rollout.replay import at, is_new, one, recording, seconds_of

DEADLINE = 60  # progressDeadlineSeconds of the recorded Deployments


def told(case: str, until: float = DEADLINE - 5) -> list[tuple[float, tuple[Finding, ...]]]:
    """What a deploy that looks each second finds in CASE, to the second UNTIL."""
    patience = Patience()
    return [
        (second, patience.settle(diagnose(Observation.of(items), "new"), second))
        for second, items in seconds_of(case)
        if second <= until
    ]


class TestDiagnose:
    @pytest.mark.parametrize(
        ("case", "kind", "seconds", "line"),
        [
            ("image-missing", "image", 8, "localhost:5001/nothing:1 is not in its registry: push it, or fix the name"),
            ("image-digest", "image", 8, "other@sha256:000000000000… is not in its registry"),
            ("image-denied", "image", 8, "refuses image localhost:5002/private:1: fix imagePullSecrets, or the name"),
            ("image-name", "image", 3, "`Registry/Slipway:1` is not a valid image name: fix `images:` of the overlay"),
            ("image-platform", "platform", 3, "has nothing for its node's architecture: push it for that platform too"),
            ("start-error", "start", 3, 'cannot start: exec: "no-such-program": executable file not found in $PATH'),
            ("crash", "crash", 18, "its container backend ended with exit code 1 (3 times)"),
            ("settings", "crash", 4, "its container backend ended with exit code 2"),
            ("liveness", "probe", 17, "killed by its liveness probe (3 times): nothing listens on port 8000"),
            ("oom", "oom", 3, "killed at its memory limit of 48Mi: raise resources.limits.memory, or use less"),
            ("cpu", "unschedulable", 17, "1 Insufficient cpu: lower its requests, or add a node (it requests cpu 999)"),
            ("node-selector", "unschedulable", 17, "didn't match Pod's node affinity/selector: fix nodeSelector"),
            ("quota", "quota", 1, "quota small allows pods=1, pods=1 are used and pods=1 more needed: raise it"),
            ("limit-range", "limits", 1, "maximum cpu usage per Container is 100m, but limit is 500m: fix resources"),
            ("pod-security", "admission", 1, "Pod Security restricted:latest: allowPrivilegeEscalation != false"),
            ("policy", "admission", 2, "ValidatingAdmissionPolicy no-forbidden says: commands must not be forbidden"),
            ("webhook-away", "admission", 22, "admission webhook away.example.com does not answer"),
            ("service-account", "config", 12, "there is no ServiceAccount nobody: create it"),
            ("secret-missing", "config", 3, 'secret "not-there" not found: create the Secret not-there'),
            ("config-missing", "config", 3, 'configmap "not-there" not found: create the ConfigMap not-there'),
            ("key-missing", "config", 3, "add the key B to the Secret there"),
            ("mount-missing", "config", 12, "its volume needs the Secret not-there, which does not exist: create it"),
            (
                "claim-pending",
                "claim",
                12,
                'PersistentVolumeClaim data is pending: storageclass.storage.k8s.io "golden"',
            ),
            ("wrong-path", "probe", 24, "its readiness probe GET /no-such: answered 404"),
        ],
    )
    def test_is_certain_long_before_the_deadline(self, case: str, kind: str, seconds: float, line: str) -> None:
        """Cause and fix in one line, seconds after the apply; Kubernetes itself tells after progressDeadlineSeconds."""
        when, found = next((second, found[0]) for second, found in told(case) if found and found[0].certain)
        assert (found.kind, "\n" in found.line) == (kind, False)
        assert line in found.line
        assert when <= seconds

    @pytest.mark.parametrize("case", ["good", "crash-heals", "ready-late"])
    def test_waits_for_what_heals_by_itself(self, case: str) -> None:
        """Two crashes of a service whose database is away, or 15 s of 503: never certain, and nothing at the end."""
        all_of_it = told(case)
        assert not any(found.certain for _, findings in all_of_it for found in findings)
        assert all_of_it[-1][1] == ()

    @pytest.mark.parametrize(
        ("case", "line"),
        [
            ("image-no-host", "cannot reach the registry of registry.invalid/slipway:1 (lookup registry.invalid"),
            ("never-ready", "not ready: its readiness probe GET /: answered 503 (24 times)"),
            ("exec-probe", "not ready: its readiness probe: answered 503: database refused (25 times)"),
        ],
    )
    def test_is_patient_with_networks_and_probes(self, case: str, line: str) -> None:
        """It may come back at any time; what is waited for is said, and becomes the reason at the deadline."""
        assert not any(found.certain for _, findings in told(case) for found in findings)
        assert line in told(case)[-1][1][0].line
        first, last = told(case, until=DEADLINE + 5)[-1][1]
        assert line in first.line
        assert first.certain
        assert (last.kind, last.certain) == ("deadline", True)

    @pytest.mark.parametrize(
        ("started", "line"), [(True, "its readiness probe GET /: answered 503"), (False, "startup")]
    )
    def test_forgets_the_startup_probe_once_it_has_passed(self, line: str, *, started: bool) -> None:
        """On a slow node it fails for the first seconds of every pod."""
        items = at("never-ready", 20)
        one(items, "Pod", is_new)["status"]["containerStatuses"][0]["started"] = started
        early = copy.deepcopy(one(items, "Event", lambda item: "503" in item["message"]))
        early["metadata"].update(name="early", uid="early")
        early["message"] = "Startup probe failed: dial tcp 10.244.0.56:8000: connect: connection refused"
        (found,) = diagnose(Observation.of([early, *items]), "new")
        assert line in found.line

    def test_says_each_thing_once_while_it_stays(self) -> None:
        """`ErrImagePull` and `ImagePullBackOff` take turns for minutes: the finding is the same all the time."""
        lines = {found.line for _, findings in told("image-missing") for found in findings}
        assert len(lines) == 1

    def test_looks_at_the_new_pods_alone(self) -> None:
        """An old pod that crashes is what the deploy may be about to mend."""
        items = at("good", 10)
        broken = one(at("crash", 50), "Pod", is_new)
        old = one(items, "ReplicaSet", lambda item: not item["spec"]["replicas"])
        broken["metadata"]["ownerReferences"] = [{"uid": old["metadata"]["uid"], "kind": "ReplicaSet"}]
        assert diagnose(Observation.of([*items, broken]), "new") == ()

    def test_waits_until_the_change_was_seen(self) -> None:
        """Right after the apply the newest ReplicaSet is the old one still."""
        items = at("crash", 50)
        one(items, "Deployment")["metadata"]["generation"] += 1
        assert diagnose(Observation.of(items), "new") == ()
        assert diagnose(Observation.of(at("crash", 50)), "another") == ()

    def test_tells_pods_that_fail_alike_as_one(self) -> None:
        """Three pods without the Secret are one line."""
        items = at("secret-missing", 10)
        pod = one(items, "Pod", is_new)
        more = [json.loads(json.dumps(pod).replace(pod["metadata"]["name"], f"backend-{n}")) for n in (1, 2)]
        (found,) = diagnose(Observation.of([*items, *more]), "new")
        assert found.line.endswith("create the Secret not-there (and 2 more pods)")

    def test_puts_the_certain_and_the_telling_first(self) -> None:
        """A pod without its Secret explains more than another one that is not ready yet."""
        items = at("secret-missing", 10)
        other = one(at("never-ready", 20), "Pod", is_new)
        other["metadata"]["ownerReferences"] = one(items, "Pod", is_new)["metadata"]["ownerReferences"]
        event = one(at("never-ready", 20), "Event", lambda item: "503" in item["message"])
        found = diagnose(Observation.of([event, other, *items]), "new")
        assert [(finding.kind, finding.certain) for finding in found] == [("config", True), ("probe", False)]

    def test_waits_for_a_quota_while_a_pod_leaves(self) -> None:
        """A pod that drains, or the Job of the migrations, gives its share back."""
        items = at("quota", 5)
        leaving = copy.deepcopy(one(items, "Pod"))
        leaving["metadata"].update(name="leaving", uid="leaving", deletionTimestamp="2026-11-24T16:43:00Z")
        (found,) = diagnose(Observation.of([*items, leaving]), "new")
        assert (found.kind, found.certain, found.patience) == ("quota", False, None)

    @pytest.mark.parametrize(
        "change",
        [
            lambda pod: pod["status"].update(nominatedNodeName="node-2"),
            lambda pod: pod["status"]["conditions"][0].update(
                message="0/2 nodes are available: 2 node(s) were unschedulable. no preemption"
            ),
        ],
        ids=["a preemption", "a drained node"],
    )
    def test_waits_for_a_node_that_comes(self, change: Callable[[dict[str, Any]], None]) -> None:
        """The scheduler makes room, or a node is drained just now."""
        items = at("cpu", 30)
        change(one(items, "Pod", is_new))
        (found,) = diagnose(Observation.of(items), "new")
        assert (found.kind, found.patience) == ("unschedulable", None)

    def test_waits_for_an_autoscaler(self) -> None:
        """It said that a node comes."""
        items = at("cpu", 30)
        pod = one(items, "Pod", is_new)["metadata"]
        about = {"kind": "Pod", "name": pod["name"], "uid": pod["uid"]}
        event = {"kind": "Event", "metadata": {"name": "e"}, "involvedObject": about, "reason": "TriggeredScaleUp"}
        (found,) = diagnose(Observation.of([*items, event]), "new")
        assert found.patience is None

    def test_is_patient_with_a_node_that_is_away(self) -> None:
        """Its pods say ready and not ready at once; Kubernetes moves them, or it comes back."""
        items = at("good", 10)
        pod = one(items, "Pod", is_new)
        next(each for each in pod["status"]["conditions"] if each["type"] == "Ready")["status"] = "False"
        about = {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        event = {"kind": "Event", "metadata": {"name": "e"}, "involvedObject": about, "reason": "NodeNotReady"}
        (found,) = diagnose(Observation.of([*items, event]), "new")
        assert (found.kind, found.patience) == ("node", None)
        assert "its node slipway-k3-control-plane does not answer" in found.line

    def test_is_certain_of_evictions_that_repeat(self) -> None:
        """One pod moves away from a full node; the third shows that the release fills it."""
        items = at("good", 10)
        pod = one(items, "Pod", is_new)
        pod["status"].update(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
        (found,) = diagnose(Observation.of(items), "new")
        assert (found.kind, found.certain) == ("evicted", False)
        more = [json.loads(json.dumps(pod).replace(pod["metadata"]["name"], f"backend-{n}")) for n in (1, 2)]
        (found,) = diagnose(Observation.of([*items, *more]), "new")
        assert found.certain

    def test_has_nothing_to_say_without_a_deployment(self) -> None:
        """The first deploy, before its apply."""
        assert diagnose(Observation(), "new") == ()


class TestRestarts:
    def test_tells_of_a_crash_although_it_is_ready_again(self) -> None:
        """In a bake time, any restart of a new pod is against the release."""
        (found,) = restarts(Observation.of(at("crash-heals", 30)), "new")
        assert (found.kind, found.certain, found.previous) == ("crash", True, True)
        assert diagnose(Observation.of(at("crash-heals", 30)), "new") == ()

    def test_what_ended_before_the_deploy_is_not_its_own(self) -> None:
        """A rollback finds pods that a node's restart had ended; one end more counts."""
        seen = Observation.of(at("crash-heals", 30))
        before = ends(seen)
        assert restarts(seen, "new", before) == ()
        assert restarts(seen, "new", {one: count - 1 for one, count in before.items()})

    def test_is_silent_while_all_is_well(self) -> None:
        """No restart, no word."""
        assert restarts(Observation.of(at("good", 10)), "new") == ()


class TestExamine:
    def test_takes_any_pods(self) -> None:
        """Those of a StatefulSet or a Job, or all there are: for `doctor`."""
        seen = Observation.of(at("oom", 10))
        assert [found.kind for found in examine_pods(seen, seen.pods)] == ["oom"]

    @pytest.mark.parametrize(("phase", "code", "kinds"), [("Succeeded", 0, []), ("Failed", 1, ["crash"])])
    def test_knows_when_a_job_is_over(self, phase: str, code: int, kinds: list[str]) -> None:
        """Its pod has ended for good: well, or certainly not."""
        pod = one(at("good", 10), "Pod", is_new)
        pod["status"]["phase"] = phase
        (status,) = pod["status"]["containerStatuses"]
        status.update(ready=False, state={"terminated": {"exitCode": code, "reason": "Error"}})
        found = examine_pods(Observation.of([pod]), [pod])
        assert [(finding.kind, finding.certain) for finding in found] == [(kind, True) for kind in kinds]


class TestPatience:
    WAITS = Finding("mount", "x", pod="p", patience=10)

    def test_counts_from_when_it_was_first_seen(self) -> None:
        """By this machine's clock, whatever the cluster's says."""
        patience = Patience()
        assert [patience.settle([self.WAITS], now)[0].certain for now in (100, 109.9, 110)] == [False, False, True]

    def test_starts_again_after_a_break(self) -> None:
        """What was away for a moment was healed."""
        patience = Patience()
        patience.settle([self.WAITS], 100)
        patience.settle([], 105)
        assert not patience.settle([self.WAITS], 110)[0].certain

    def test_starts_when_nothing_heals_it_any_more(self) -> None:
        """The pod that made room has left, and the scheduler gets its seconds from then."""
        patience = Patience()
        patience.settle([replace(self.WAITS, patience=None)], 100)
        assert not patience.settle([self.WAITS], 120)[0].certain
        assert patience.settle([self.WAITS], 130)[0].certain


class TestWithLog:
    def found(self, case: str, second: float) -> Finding:
        return diagnose(Observation.of(at(case, second)), "new")[0]

    def test_adds_what_the_container_said_last(self) -> None:
        """An exception, or the variable that the settings refuse."""
        found = with_log(self.found("settings", 10), recording("settings")["log"])
        assert found.line.endswith("ended with exit code 2 (2 times): SERVICE_TOKEN: is short: `nox -s init`")

    def test_knows_a_program_for_another_machine(self) -> None:
        """The kernel's words are in the log alone; no restart mends it, so the first crash is enough."""
        first = self.found("exec-format", 2)
        assert not first.certain
        found = with_log(first, recording("exec-format")["log"])
        assert (found.kind, found.certain) == ("platform", True)
        assert found.line.endswith("of another architecture than its node: build and push it for the nodes' platform")

    @pytest.mark.parametrize(
        ("log", "certain"),
        [("ModuleNotFoundError: No module named 'x'\n", True), ("ConnectionRefusedError: [Errno 111]\n", False)],
    )
    def test_knows_a_program_that_is_wrong(self, log: str, *, certain: bool) -> None:
        """An import fails for ever, a connection for a while."""
        assert with_log(self.found("crash", 3), log).certain is certain

    def test_reads_the_log_of_the_run_that_ended(self) -> None:
        """`--previous` where the next run has begun already."""
        found = replace(self.found("crash", 3), previous=True)
        assert log_arguments(found) == ["logs", found.pod, "--container", "backend", "--previous", "--tail=200"]


class TestRefusal:
    @pytest.mark.parametrize(
        ("message", "kind", "line", "patience"),
        [
            (
                'admission webhook "rules.example.com" denied the request: no latest',
                "admission",
                "admission webhook rules.example.com says: no latest",
                0,
            ),
            (
                'pods "b" is forbidden: failed quota: q: must specify limits.cpu for: backend',
                "quota",
                "quota q: must specify limits.cpu for: backend",
                0,
            ),
            (
                "etcdserver: request timed out",
                "admission",
                "etcdserver: request timed out: Kubernetes keeps trying",
                None,
            ),
            ("something new", "admission", "something new", 20),
        ],
    )
    def test_knows_the_words_of_the_api_server(
        self, message: str, kind: str, line: str, patience: float | None
    ) -> None:
        """Those of events, of conditions and of kubectl are the same."""
        found = refusal(message, "pods of x")
        assert (found.kind, found.patience) == (kind, patience)
        assert found.line.startswith(f"pods of x are refused: {line}")


class TestSummary:
    def test_is_the_last_warnings(self) -> None:
        """For what no finding explains."""
        said = summary(Observation.of(at("claim-pending", 20)))
        assert said.startswith("FailedScheduling: 0/1 nodes are available: pod has unbound immediate")

    def test_says_where_to_look_when_nothing_is_said(self) -> None:
        """Also without a Deployment."""
        assert "kubectl describe deployment backend" in summary(Observation.of(at("config-missing", 0)))
        assert summary(Observation()) == "there is no Deployment backend"


def test_an_init_container_that_does_not_end_is_named() -> None:
    """With its seconds: nothing else is said of it."""
    items = at("never-ready", 20)
    pod = one(items, "Pod")
    pod["spec"]["initContainers"] = [{"name": "hang", "image": "x"}]
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    pod["status"]["initContainerStatuses"] = [{"name": "hang", "ready": False, "restartCount": 0, "state": running}]
    seen = replace(Observation.of(items), now=datetime(2026, 1, 1, 0, 0, 58, tzinfo=UTC).timestamp())
    [finding] = [each for each in examine_pods(seen, [pod]) if each.kind == "init"]
    name = pod["metadata"]["name"]
    assert finding.line == f"pod {name}: its init container hang has been running for 58 s, and has to end first"
    assert not finding.certain
