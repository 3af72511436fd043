"""The Job of a migration: what becomes of it, and how long it may take."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Kubectl, Object
from pipeline.errors import DeployFailed
from pipeline.targets.common.migrating import BRIEF, Limits
from pipeline.targets.kubernetes.job import Ended, MigrateJob, Removed, command_of, lasting
from tests.pipeline.targets.kubernetes.test_job import MIGRATE

LIMITS = Limits({"MIGRATION_TIMEOUT_SECONDS": "1800"}, 1920)
UPGRADE = ("upgrade", "--expect", "0001")


def pod(phase: str, *conditions: Object, **status: str) -> Object:
    return {
        "metadata": {"name": "migrate-upgrade-2cdsp"}, "status": {"phase": phase, "conditions": conditions, **status}
    }  # fmt: skip


def condition(kind: str, reason: str, message: str = "") -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


RUNNING, DONE, FAILED = pod("Running"), pod("Succeeded"), pod("Failed")
EVICTED = pod("Failed", condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting"))
PRESSED = pod("Failed", reason="Evicted", message="The node was low on resource: memory.")
BROKEN: Object = {"status": {"conditions": [condition("FailureTarget", "BackoffLimitExceeded")]}}
LATE: Object = {"status": {"conditions": [condition("Failed", "DeadlineExceeded", "Job was active too long")]}}
COMPLETE: Object = {"status": {"conditions": [condition("Complete", "")]}}


class Cluster:
    """kubectl, with what each Job's pod and the Job itself are from one question to the next: PODS, JOB."""

    def __init__(self, *tries: tuple[list[Object | None], Object]) -> None:
        self.tries = list(tries)
        self.seen: list[Object | None] = []
        self.job: Object = {}
        self.applied: list[Object] = []
        self.deleted: list[str] = []

    def apply(self, objects: list[Object]) -> None:
        [made] = objects
        self.applied.append(made)
        self.seen, self.job = self.tries.pop(0)

    def get(self, kind: str, *_: str) -> list[Object]:
        if kind == "job":
            return [self.job]
        now = self.seen.pop(0) if len(self.seen) > 1 else (self.seen or [None])[0]
        return [now] if now else []

    def ask(self, verb: str, *arguments: str, **_: object) -> str:
        if verb == "delete":
            self.deleted.append(arguments[1])
            return ""
        return "migration 0002: waits for pid 7 (report)\n" if "--tail=1" in arguments else "applied 0002 add\n"

    def names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.applied]


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock of which each look costs a second."""
    clock = iter(range(10_000))
    monkeypatch.setattr("pipeline.targets.kubernetes.job.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("pipeline.targets.kubernetes.job.time.sleep", lambda _: None)
    return iter([None])


def migrate(cluster: Cluster, *arguments: str, tell: list[str] | None = None, limits: Limits = LIMITS) -> str:
    said = tell if tell is not None else []
    return MigrateJob(cast("Kubectl", cluster), MIGRATE, said.append, limits=limits).run(*arguments)


class TestRemovedPods:
    @pytest.mark.parametrize(
        ("last", "job", "why"),
        [
            (None, BROKEN, "a drained node, an eviction, by hand?"),
            (EVICTED, BROKEN, "EvictionByEvictionAPI: Eviction API: evicting"),
            (PRESSED, BROKEN, "Evicted: The node was low on resource: memory."),
        ],
    )
    def test_are_named_at_once_and_tried_once_more(
        self, last: Object | None, job: Object, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With the same arguments: where something was applied after all, `--expect` refuses."""
        cluster, said = Cluster(([RUNNING, last], job), ([RUNNING, DONE], {})), list[str]()
        assert migrate(cluster, *UPGRADE, tell=said) == "applied 0002 add"
        assert f"the pod of the migrations' Job was removed while it ran ({why})" in caplog.text
        first, second = cluster.applied
        assert first == second
        assert first["spec"]["template"]["spec"]["containers"][0]["args"] == list(UPGRADE)
        assert not [line for line in said if "no pod yet" in line]

    def test_that_are_removed_again_fail_the_deploy(self) -> None:
        """A cluster that is being taken down is no place for a third try."""
        cluster = Cluster(([RUNNING, None], BROKEN), ([RUNNING, None], BROKEN))
        with pytest.raises(Removed, match="removed while it ran"):
            migrate(cluster, *UPGRADE)

    def test_are_not_tried_again_where_nothing_says_what_was_expected(self) -> None:
        """As with a release of an older template."""
        with pytest.raises(Removed):
            migrate(Cluster(([RUNNING, None], BROKEN)), "upgrade")

    def test_that_had_done_their_work_are_no_failure(self) -> None:
        """The node went away after the last migration."""
        assert migrate(Cluster(([RUNNING, None], COMPLETE)), *UPGRADE) == ""


class TestLimits:
    def test_a_migration_may_take_as_long_as_the_setting_says(self) -> None:
        """Its pod on a node that is drained, too; the Job's own deadline comes after the pipeline's."""
        spec = lasting(MIGRATE, LIMITS)["spec"]
        pod_spec = spec["template"]["spec"]
        assert 1800 < pod_spec["terminationGracePeriodSeconds"] <= LIMITS.seconds < spec["activeDeadlineSeconds"]
        env = {one["name"]: one.get("value") for one in pod_spec["containers"][0]["env"]}
        assert (env["MIGRATION_TIMEOUT_SECONDS"], env["MIGRATION_ON_SIGTERM"]) == ("1800", "finish")
        assert "POSTGRES_USER" in env
        assert spec["template"]["metadata"]["annotations"] == {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"
        }

    def test_what_changes_nothing_has_no_such_time(self) -> None:
        """Nor a grace period: a question that hangs goes at once."""
        cluster = Cluster(([DONE], {}))
        migrate(cluster, "status", limits=BRIEF)
        assert "terminationGracePeriodSeconds" not in json.dumps(cluster.applied)

    def test_one_that_is_given_up_is_stopped_in_the_database(self) -> None:
        """Its pod would go on for as long as its grace period."""
        cluster = Cluster(([None, RUNNING], {}), ([DONE], {}))
        with pytest.raises(DeployFailed, match="did not end"):
            migrate(cluster, *UPGRADE, limits=Limits({}, 20))
        assert cluster.names() == ["migrate-upgrade", "migrate-stop"]
        assert cluster.deleted[-2:] == ["migrate-stop", "migrate-upgrade"]

    def test_a_deadline_of_the_cluster_is_named(self) -> None:
        """It is no eviction, and no reason to try again."""
        with pytest.raises(DeployFailed, match="did not end: Job was active too long"):
            migrate(Cluster(([RUNNING, None], LATE)), *UPGRADE)


def test_what_it_waits_for_is_shown() -> None:
    """The last line that its pod said."""
    said: list[Any] = []
    migrate(Cluster(([RUNNING, RUNNING, DONE], {})), *UPGRADE, tell=said)
    assert any(line.endswith(": migration 0002: waits for pid 7 (report)") for line in said)


def test_a_failure_of_its_own_is_none_of_the_cluster() -> None:
    """It ends the deploy with what the command said last."""
    with pytest.raises(DeployFailed, match="the migrations' Job failed: applied 0002 add"):
        migrate(Cluster(([RUNNING, FAILED], {})), *UPGRADE)


class TestGiven:
    """What a program of a release is given, and how it ends."""

    JOB = command_of(MIGRATE, "accounts-1", "backend.accounts", "add")

    def run(self, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], MigrateJob]:
        """Let the cluster note what is created."""
        created: list[str] = []
        was = cluster.ask

        def ask(verb: str, *arguments: str, given: str = "", **options: object) -> str:
            if verb != "create":
                return was(verb, *arguments, **options)
            created.append(given)
            return ""

        monkeypatch.setattr(cluster, "ask", ask)
        monkeypatch.setattr(
            cluster, "apply", lambda jobs: [{**jobs[0], "metadata": {"name": "accounts-1", "uid": "u"}}]
        )
        cluster.seen, cluster.job = cluster.tries.pop(0)
        return created, MigrateJob(cast("Kubectl", cluster), MIGRATE, lambda _: None, "the Job of backend.accounts")

    def test_is_created_after_its_job_and_goes_with_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a Secret, and nowhere else."""
        cluster = Cluster(([RUNNING, DONE], {}))
        created, job = self.run(cluster, monkeypatch)
        assert job.do(self.JOB, "command", "a hash") == "applied 0002 add"
        (secret,) = json.loads(created[0])["items"]
        assert base64.b64decode(secret["data"]["given"]) == b"a hash"
        assert cluster.deleted == ["accounts-1", "accounts-1"]

    def test_is_removed_where_the_program_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error has what it printed."""
        cluster = Cluster(([RUNNING, FAILED], {}))
        _, job = self.run(cluster, monkeypatch)
        with pytest.raises(Ended, match=r"the Job of backend.accounts failed: applied 0002 add") as failed:
            job.do(self.JOB, "command", "a hash")
        assert failed.value.output == "applied 0002 add\n"
        assert cluster.deleted[-1] == "accounts-1"
