"""Backups on Kubernetes: which Job each verb is, what it alone gets, and what becomes of it."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.engines.kubectl import Kubectl, Object, Refused
from pipeline.engines.kustomize import render
from pipeline.errors import DeployFailed, SlipwayError, UsageError
from pipeline.targets.common.backups import needs_of
from pipeline.targets.common.migrating import Limits
from pipeline.targets.kubernetes.backups import KubernetesBackups, backup_job
from pipeline.targets.kubernetes.followed import FollowedJob, Lines
from pipeline.targets.kubernetes.job import Ended, Removed
from pipeline.targets.kubernetes.trial import selects
from tests.services import ROOT

pytestmark = pytest.mark.needs("kubectl")  # renders

VERBS = ("backup", "list", "prune", "fetch", "verify", "restore", "compare", "swap", "drop")
OF_SUPERUSER, OF_IDENTITY, OF_REDIS = "POSTGRES_SUPERUSER_PASSWORD", "BACKUP_IDENTITY", "REDIS_PASSWORD"


@cache
def manifests() -> list[Object]:
    return render({"resources": [str(ROOT / "k8s/overlays/kind")]})


def cron(name: str = "backup") -> Object:
    return next(one for one in manifests() if (one["kind"], one["metadata"]["name"]) == ("CronJob", name))


def job(verb: str, *arguments: str, given: bool = False) -> Object:
    return backup_job(cron(), "backup-x", (verb, *arguments), 100, needs_of(verb), given=given)


def pod_of(one: Object) -> dict[str, Any]:
    found: dict[str, Any] = one["spec"]["template"]["spec"]
    return found


def keys_of(one: Object) -> set[str]:
    """The keys of the Secret that a Job mounts."""
    [volume] = [each for each in pod_of(one)["volumes"] if each["name"] == "secrets"]
    return {item["key"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}


class TestBackupJob:
    def test_is_what_the_clock_would_start(self) -> None:
        """With another verb, once, and removed even where whoever waits for it was killed."""
        made, template = job("list"), cron()["spec"]["jobTemplate"]
        assert pod_of(made) == {
            **template["spec"]["template"]["spec"],
            "containers": [{**template["spec"]["template"]["spec"]["containers"][0], "args": ["list"]}],
        }
        spec = made["spec"]
        assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (0, 220, 3600)
        assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "slipway"  # `down` finds it

    @pytest.mark.parametrize(
        ("secret", "verbs"),
        [
            (OF_SUPERUSER, {"restore", "swap", "drop"}),
            (OF_IDENTITY, {"restore", "verify"}),
            (OF_REDIS, {"swap"}),
            ("POSTGRES_PASSWORD", set(VERBS)),
            ("JWT_SECRET_KEY", set()),
        ],
    )
    def test_gets_what_its_verb_needs_alone(self, secret: str, verbs: set[str]) -> None:
        """The scheduled backup can neither decrypt what it made, nor make a database."""
        assert {verb for verb in VERBS if secret in keys_of(job(verb))} == verbs
        names = {one["name"] for one in pod_of(job("restore"))["containers"][0]["env"]}
        assert ("POSTGRES_SUPERUSER" in names, "POSTGRES_SUPERUSER" in json.dumps(job("list"))) == (True, False)

    def test_reaches_redis_only_to_end_what_is_cached(self) -> None:
        """At both ends, whatever else the component may reach."""
        policies = [one for one in manifests() if one["kind"] == "NetworkPolicy"]
        [out] = [one["spec"] for one in policies if one["metadata"]["name"] == "swap-to-redis"]
        [into] = [one["spec"] for one in policies if one["metadata"]["name"] == "swap-into-redis"]
        labels = {verb: job(verb)["spec"]["template"]["metadata"]["labels"] for verb in VERBS}
        for selector in (out["podSelector"], into["ingress"][0]["from"][0]["podSelector"]):
            assert [verb for verb in VERBS if selects(selector, labels[verb])] == ["swap"]
        [postgres] = [one["spec"] for one in policies if one["metadata"]["name"] == "backup-to-postgres"]
        assert all(selects(postgres["podSelector"], labels[verb]) for verb in VERBS)

    def test_is_given_its_standard_input_by_a_file(self, tmp_path: Path) -> None:
        """The program itself is the container's first process, and takes the signal to end."""
        made = job("restore", "newest", "--into", "a b", given=True)
        [container] = pod_of(made)["containers"]
        (tmp_path / "given").write_text('{"project": "x"}\n')
        [shell, option, script] = container["command"]
        script = script.replace("/run/given", str(tmp_path))
        arguments = ["sh", "-c", 'cat; printf "%s\\n" "$@"', "x", *container["args"][3:]]
        done = subprocess.run([shell, option, script, *arguments], capture_output=True, text=True, check=True)
        assert container["args"][:3] == ["python", "-m", "backend.backups"]
        assert done.stdout == '{"project": "x"}\nrestore\nnewest\n--into\na b\n'
        assert pod_of(made)["volumes"][-1]["secret"]["secretName"] == "backup-x"
        assert "given" not in json.dumps(cron())


def pod(phase: str, code: int = 0) -> Object:
    state = {"terminated": {"exitCode": code}} if phase in ("Succeeded", "Failed") else {"running": {}}
    statuses = [{"name": "backup", "state": state}]
    return {"metadata": {"name": "backup-x-1", "labels": {}}, "spec": {"containers": [{"name": "backup"}]},
            "status": {"phase": phase, "containerStatuses": statuses, "conditions": []}}  # fmt: skip


LINES = ["2026-11-28T16:00:00.1Z 1 of 2", "2026-11-28T16:00:00.2Z 2 of 2", '2026-11-28T16:00:01.0Z {"backup": {}}']


class Cluster:
    """kubectl, with what the Job's pod is from one question to the next; with each, its log has a line more."""

    def __init__(self, *pods: Object | None, job: Object | None = None) -> None:
        self.pods, self.job = list(pods), job or {}
        self.deleted: list[str] = []
        self.created: list[str] = []
        self.asked = 0

    def apply(self, objects: list[Object]) -> list[Object]:
        return [{**one, "metadata": {**one["metadata"], "uid": "u"}} for one in objects]

    def get(self, kind: str, *_: str) -> list[Object]:
        if kind == "job":
            return [self.job]
        now = self.pods.pop(0) if len(self.pods) > 1 else self.pods[0]
        return [now] if now else []

    def ask(self, verb: str, *arguments: str, given: str = "", **_: object) -> str:
        if verb == "delete":
            self.deleted.append(arguments[1])
        if verb == "create":
            self.created.append(given)
        if verb != "logs":
            return ""
        if "--timestamps" not in arguments:
            return "".join(f"{line.partition(' ')[2]}\n" for line in LINES)
        self.asked += 1
        since = next((one.partition("=")[2] for one in arguments if one.startswith("--since-time")), "")
        return "\n".join(line for line in LINES[: self.asked] if line[:19] >= since[:19])


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A clock of which each look costs a second."""
    clock = iter(range(10_000))
    monkeypatch.setattr("pipeline.targets.kubernetes.followed.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("pipeline.targets.kubernetes.followed.time.sleep", lambda _: None)
    return iter([None])


def follow(cluster: Cluster, said: list[str], *, seconds: float = 100, given: str | None = None) -> str:
    made = job("backup", given=given is not None)
    followed = FollowedJob(cast("Kubectl", cluster), made, said.append, "the Job backup-x", Limits({}, seconds))
    return followed.do(made, "backup", given)


class TestFollowedJob:
    def test_hands_on_each_line_once_and_returns_all(self) -> None:
        """The result is for a program, and no progress."""
        said: list[str] = []
        cluster = Cluster(None, *[pod("Running")] * 3, pod("Succeeded"))
        assert follow(cluster, said).splitlines()[-1] == '{"backup": {}}'
        assert said == ["1 of 2", "2 of 2"]
        assert cluster.deleted == ["backup-x", "backup-x"]  # one that a killed run had left, and this one

    def test_says_how_the_program_ended(self) -> None:
        """What was asked wrongly is not what went wrong."""
        with pytest.raises(Ended) as ended:
            follow(Cluster(pod("Running"), pod("Failed", 2)), [])
        assert (ended.value.code, ended.value.output.splitlines()[0]) == (2, "1 of 2")

    def test_is_removed_where_whoever_listens_gives_up(self) -> None:
        """As with Ctrl-C: its pod gets SIGTERM."""

        class Stop(list[str]):
            def append(self, _: str) -> None:
                raise KeyboardInterrupt

        cluster = Cluster(pod("Running"))
        with pytest.raises(KeyboardInterrupt):
            follow(cluster, Stop())
        assert cluster.deleted[-1] == "backup-x"

    def test_gives_up_after_its_time(self) -> None:
        """That of its program, or that to start in."""
        with pytest.raises(DeployFailed, match=r"the Job backup-x did not end within 10 s"):
            follow(Cluster(pod("Running")), [], seconds=10)
        with pytest.raises(DeployFailed, match=r"did not start within 300 s: no pod was created for it"):
            follow(Cluster(None), [], seconds=10)

    def test_names_a_pod_that_went_away(self) -> None:
        """Whether it was done, only its log could tell."""
        failed = {"status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}}
        with pytest.raises(Removed, match="removed while it ran"):
            follow(Cluster(pod("Running"), None, job=failed), [])
        done = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
        with pytest.raises(Removed, match="before its log could be read"):
            follow(Cluster(pod("Running"), None, job=done), [])

    def test_is_given_its_input_by_a_secret_that_goes_with_it(self) -> None:
        """As each program of a release."""
        cluster = Cluster(pod("Succeeded"))
        follow(cluster, [], given='{"project": "x"}')
        (secret,) = json.loads(cluster.created[0])["items"]
        assert base64.b64decode(secret["data"]["given"]) == b'{"project": "x"}'
        assert secret["metadata"]["ownerReferences"][0]["name"] == "backup-x"


def test_a_log_that_cannot_be_read_is_read_later() -> None:
    """A node may not answer for a moment."""

    class Away(Cluster):
        def ask(self, verb: str, *arguments: str, **options: Any) -> str:
            if self.asked == 0:
                self.asked = 1
                raise Refused("kubectl logs: away", "away")
            return super().ask(verb, *arguments, **options)

    said: list[str] = []
    lines = Lines(cast("Kubectl", Away(None)), "backup-x-1", "backup", said.append)
    lines.hand_on()
    assert said == []
    lines.hand_on()
    assert said == ["1 of 2", "2 of 2"]


NOT_PROVED = "no release was proved on kind yet: `nox -s deploy -- kind`"
NO_CRONJOB = (
    "the release that serves kind has no CronJob backup: add `../../components/backup` to the components of"
    " k8s/overlays/kind/kustomization.yaml, then `nox -s deploy -- kind`"
)


class Site:
    """What the role knows of an environment whose release has these `objects`; none was proved where they are None."""

    def __init__(self, kubectl: object, objects: list[Object] | None) -> None:
        release = SimpleNamespace(
            manifests=objects or [], objects=lambda kinds: [one for one in objects or () if one["kind"] in kinds]
        )
        self.kubectl = kubectl
        self.env = SimpleNamespace(name="kind", overlay="k8s/overlays/kind")
        self.kept = SimpleNamespace(knows=bool, find=lambda _: release)
        self.records = SimpleNamespace(serving=lambda: SimpleNamespace(release="r") if objects is not None else None)

    def serving(self) -> list[str]:
        return []  # nothing has to serve for a backup


class TestKubernetesBackups:
    def run(self, kubectl: object, objects: list[Object] | None, verb: str = "backup") -> dict[str, Any]:
        role = KubernetesBackups(cast("Any", Site(kubectl, objects)))
        return role.run(verb, told=lambda _: None, seconds=100)

    def test_returns_what_the_program_printed_last(self) -> None:
        """Of the release that was proved last, also where it does not serve any more."""
        assert self.run(Cluster(pod("Succeeded")), manifests()) == {"backup": {}}

    @pytest.mark.parametrize(
        ("phase", "verdict", "backup"),
        [("Succeeded", "done", {"snapshot": "2026-11-28T16:00:00+00:00", "bytes": 7}), ("Failed", "failed", None)],
    )
    def test_leaves_how_one_on_demand_ended(
        self, phase: str, verdict: str, backup: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For the exporter, as the Job is gone; of other verbs nothing."""
        applied: list[Object] = []
        said = json.dumps({"backup": {"snapshot": "2026-11-28T16:00:00+00:00", "bytes": 7, "name": "x"}})
        monkeypatch.setattr(sys.modules[__name__], "LINES", [*LINES[:2], f"2026-11-28T16:00:01.0Z {said}"])

        class Noted(Cluster):
            def apply(self, objects: list[Object]) -> list[Object]:
                applied.extend(one for one in objects if one["kind"] == "ConfigMap")
                return super().apply(objects)

        with contextlib.suppress(SlipwayError):
            self.run(Noted(pod(phase, 1)), manifests())
        self.run(Noted(pod("Succeeded")), manifests(), "list")
        [left] = applied
        facts = json.loads(left["data"]["facts.json"])
        assert (left["metadata"]["name"], facts["verdict"], facts["backup"]) == ("backup-facts", verdict, backup)

    def test_has_no_superuser_where_the_database_is_outside(self) -> None:
        """Nobody has that password: no pod may wait for it."""
        applied: list[Object] = []

        class Noted(Cluster):
            def apply(self, objects: list[Object]) -> list[Object]:
                applied.extend(objects)
                return super().apply(objects)

        self.run(Noted(pod("Succeeded")), manifests(), "restore")
        self.run(Noted(pod("Succeeded")), [one for one in manifests() if one["kind"] != "StatefulSet"], "restore")
        assert [OF_SUPERUSER in keys_of(one) for one in applied] == [True, False]
        assert all(OF_IDENTITY in keys_of(one) for one in applied)

    def test_restores_on_another_server_as_its_superuser(self) -> None:
        """That of an upgrade, to which no Service leads."""
        applied: list[Object] = []

        class Noted(Cluster):
            def apply(self, objects: list[Object]) -> list[Object]:
                applied.extend(objects)
                return super().apply(objects)

        role = KubernetesBackups(cast("Any", Site(Noted(pod("Succeeded")), manifests())))
        role.run("drill", "newest", told=lambda _: None, seconds=100, server="10.0.0.9")
        [job] = applied
        hosts = [one["value"] for one in pod_of(job)["containers"][0]["env"] if one["name"] == "POSTGRES_HOST"]
        assert (hosts, {OF_SUPERUSER, OF_IDENTITY} <= keys_of(job)) == (["10.0.0.9"], True)

    @pytest.mark.parametrize(("objects", "line"), [(None, NOT_PROVED), ([], NO_CRONJOB)])
    def test_says_what_is_missing(self, objects: list[Object] | None, line: str) -> None:
        """Nothing was touched."""
        with pytest.raises(UsageError) as refused:
            self.run(Cluster(None), objects)
        assert refused.value.problems == (line,)

    def test_says_who_gives_a_right_that_is_missing(self) -> None:
        """An environment of before this component was bootstrapped without it."""

        class Without(Cluster):
            def apply(self, objects: list[Object]) -> list[Object]:
                said = 'jobs.batch is forbidden: User "deployer" cannot create resource "jobs"'
                raise Refused("kubectl apply: forbidden", said)

        with pytest.raises(SlipwayError, match="forbidden: ask an administrator to apply k8s/bootstrap, once"):
            self.run(Without(None), manifests())

    def test_names_its_schedules(self) -> None:
        """For whoever makes a backup by hand each night."""
        role = KubernetesBackups(cast("Any", Site(Cluster(None), manifests())))
        assert role.hint() == (
            "CronJobs of component backup: backup `17 2 * * *` (Etc/UTC), drill `41 3 * * 0` (Etc/UTC);"
            " k8s/overlays/kind may patch `schedule`"
        )
        bare = KubernetesBackups(cast("Any", Site(Cluster(None), [])))
        assert bare.hint().startswith("the release that serves kind has no CronJob backup")

    def test_gives_no_files_and_says_where_they_are(self, tmp_path: Path) -> None:
        """A log is cut, and read by others; no deployer may enter a pod."""
        role = KubernetesBackups(cast("Any", Site(Cluster(None), manifests())))
        for summaries, place in (
            ([{"name": "n", "away": True}], "take them from off the host"),
            ([], "in claim backups"),
        ):
            role.run = lambda *_, found=summaries, **__: {"backups": found}  # type: ignore[method-assign]
            with pytest.raises(UsageError, match=place):
                role.fetch("n", tmp_path, lambda _: None)
