"""The pod that tries a release: what it has of the service, and who is kept from it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.managed import NO_REDIS
from pipeline.engines.kustomize import render
from pipeline.errors import DeployFailed, NotReady
from pipeline.images.build import PushedImages
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from pipeline.targets.kubernetes import trial
from pipeline.targets.kubernetes.release import Release
from pipeline.targets.kubernetes.rollout.findings import Finding
from pipeline.targets.kubernetes.trial import NAME, selects, trial_objects, use_database, use_server
from tests.services import ROOT

IMAGES = PushedImages("registry/app", *(f"sha256:{digit * 64}" for digit in "123"))
JOB = f"{NAME}-abc123"
Objects = list[dict[str, Any]]


@pytest.fixture(name="manifests", params=["kind", "production"])
def _manifests(request: pytest.FixtureRequest) -> Objects:
    """What an overlay applies."""
    return render({"resources": [str(ROOT / "k8s/overlays" / request.param)]})


def tried(manifests: Objects) -> Objects:
    """Return what the trial of a release with these `manifests` applies."""
    release = Release("new", IMAGES, Source(None, dirty=False), None, [], {}, manifests)
    return trial_objects(release, JOB, "slipway-secrets", 300.5)


def of(objects: Objects, kind: str, name: str | None = None) -> dict[str, Any]:
    return next(one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"]))


class TestTrialObjects:
    def test_runs_what_the_service_runs(self, manifests: Objects) -> None:
        """Its image, settings, secrets, rights and place; nothing starts it again, and it has nobody to wait for."""
        job = of(tried(manifests), "Job")["spec"]
        there, pod = of(manifests, "Deployment", "backend")["spec"]["template"]["spec"], job["template"]["spec"]
        service, asks = pod["containers"]
        [serves] = there["containers"]
        for key in ("image", "envFrom", "volumeMounts", "securityContext", "resources", "readinessProbe"):
            assert service[key] == serves[key]
        assert service["env"] == [*serves["env"], {"name": "DRAIN_SECONDS", "value": "0"}]
        assert (asks["image"], asks["securityContext"]) == (serves["image"], serves["securityContext"])
        for key in ("serviceAccountName", "securityContext", "enableServiceLinks"):
            assert pod[key] == there[key]
        assert pod["volumes"][:-2] == there["volumes"]
        assert pod["terminationGracePeriodSeconds"] == there["terminationGracePeriodSeconds"]
        assert (pod["restartPolicy"], job["backoffLimit"], job["activeDeadlineSeconds"]) == ("Never", 0, 300)

    def test_is_found_by_nobody(self, manifests: Objects) -> None:
        """No Service, Deployment, autoscaler or disruption budget selects it."""
        labels = of(tried(manifests), "Job")["spec"]["template"]["metadata"]["labels"]
        services = [one["spec"].get("selector") for one in manifests if one["kind"] == "Service"]
        assert not [one for one in services if one and selects({"matchLabels": one}, labels)]
        for kind in ("Deployment", "PodDisruptionBudget", "StatefulSet"):
            for one in (one for one in manifests if one["kind"] == kind):
                assert not selects(one["spec"]["selector"], labels), one["metadata"]["name"]

    def test_has_the_network_of_the_service(self, manifests: Objects) -> None:
        """Each policy of the release about the service holds for it; that it enters a store, the store's own allow."""
        objects = tried(manifests)
        labels = of(objects, "Job")["spec"]["template"]["metadata"]["labels"]
        was = of(manifests, "Deployment", "backend")["spec"]["template"]["metadata"]["labels"]
        there = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"}
        own = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "NetworkPolicy"}
        about = {name for name, spec in there.items() if spec["podSelector"] and selects(spec["podSelector"], was)}
        assert {f"{JOB}-{name}" for name in about} == set(own)
        assert "dns" in about
        for name in about:
            copy = own[f"{JOB}-{name}"]
            assert selects(copy["podSelector"], labels)
            assert not selects(copy["podSelector"], was)
            assert {**copy, "podSelector": None} == {**there[name], "podSelector": None}
        for name in ("to-postgres", "to-redis"):
            for rule in there.get(name, {}).get("ingress", [{}])[0].get("from", [])[:1]:
                assert selects(rule["podSelector"], labels)

    def test_asks_with_the_token_and_nothing_else_of_the_service(self, manifests: Objects) -> None:
        """The smoke test is a file; of the secrets it has that one, and where it is missing it goes without."""
        objects = tried(manifests)
        pod = of(objects, "Job")["spec"]["template"]["spec"]
        asks = pod["containers"][1]
        assert [mount["name"] for mount in asks["volumeMounts"]] == [NAME, f"{NAME}-token"]
        assert asks["command"][-1] == f"{asks['volumeMounts'][0]['mountPath']}/smoke.pyz"
        archive, token = pod["volumes"][-2:]
        assert archive == {"name": NAME, "configMap": {"name": of(objects, "ConfigMap")["metadata"]["name"]}}
        assert [one["key"] for one in token["secret"]["items"]] == ["SERVICE_TOKEN"]
        assert token["secret"]["optional"]
        assert "env" not in asks

    def test_has_a_name_of_its_own_and_one_label(self, manifests: Objects) -> None:
        """A trial whose node is lost is in nobody's way; by the label people find them all."""
        for one in tried(manifests):
            assert one["metadata"]["name"].startswith(JOB)
            assert one["metadata"]["labels"]["app.kubernetes.io/name"] == NAME

    @pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget"])
    def test_refuses_what_would_select_it(self, manifests: Objects, kind: str) -> None:
        """People would be sent to what is only tried, or it would count as one that serves."""
        selector = of(manifests, kind, "backend")["spec"]["selector"]
        selector.get("matchLabels", selector).pop("app.kubernetes.io/name")
        with pytest.raises(DeployFailed, match=r"backend selects by .*component.* alone.*add `app.kubernetes.io/name`"):
            tried(manifests)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_selects(selector: dict[str, Any], matches: bool) -> None:
    """As Kubernetes does."""
    assert selects(selector, {"a": "1"}) is matches


class TestUseDatabase:
    """The replica of a restore."""

    def env(self, manifests: Objects, *, managed: bool) -> dict[str, Any]:
        job = of(tried(manifests), "Job")
        use_database(job, "restored", managed=managed)
        service = next(one for one in job["spec"]["template"]["spec"]["containers"] if one["name"] == "backend")
        names = [one["name"] for one in service["env"]]
        assert len(names) == len(set(names))
        return {one["name"]: one.get("value", one.get("valueFrom")) for one in service["env"]}

    def test_is_on_another_database_as_the_service_is_on_its_own(self, manifests: Objects) -> None:
        """As whom it logs in stays, and what is cached of the other is not read."""
        env = self.env(manifests, managed=False)
        assert (env["POSTGRES_DB"], env["REDIS_URL"]) == ("restored", NO_REDIS)
        assert ("POSTGRES_USER" in env, "DATABASE_URL" in env) == (True, False)

    def test_has_the_whole_url_from_a_secret_of_its_own_where_others_manage_it(self, manifests: Objects) -> None:
        """It has a password, so no manifest has it."""
        env = self.env(manifests, managed=True)
        assert env["DATABASE_URL"] == {"secretKeyRef": {"name": JOB, "key": "given"}}
        assert env["REDIS_URL"] == NO_REDIS


def test_is_on_another_server_with_no_cache(manifests: Objects) -> None:
    """The replica of an upgrade: all else is as the service has it."""
    job = of(tried(manifests), "Job")
    service = next(one for one in job["spec"]["template"]["spec"]["containers"] if one["name"] == "backend")
    before = {one["name"] for one in service["env"]}
    use_server(job, "10.0.0.9")
    env = {one["name"]: one.get("value") for one in service["env"]}
    assert (env["POSTGRES_HOST"], env["REDIS_URL"], len(env)) == ("10.0.0.9", NO_REDIS, len(service["env"]))
    assert {*env} == before | {"POSTGRES_HOST", "REDIS_URL"}


class FakeSite:
    """What `_wait` asks of a site: `looks` are what it sees, one after the other, the last one for ever."""

    def __init__(self, *looks: tuple[Any, ...], lost: str | None = None, timeout: float = 60) -> None:
        self.rollout, self.lease = self, SimpleNamespace(lost=lost)
        self.env = SimpleNamespace(timeout=timeout)
        self._looks = list(looks)

    def examine(self, *_: object) -> tuple[Any, ...]:
        """Return the next look."""
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def look(*, service: str = "running", asks: str = "running", ready: bool = False, **more: Any) -> tuple[Any, ...]:
    """Return a look at a pod with these states."""
    statuses = [{"name": "backend", "ready": ready, "state": {service: {}}}, {"name": "smoke", "state": {asks: {}}}]
    pod = {"metadata": {"name": "try-1"}, "status": {"containerStatuses": statuses}}
    return more.get("ended"), pod, more.get("found", ())


CRASH = Finding("crash", "its container ended: no key", patience=None)
QUOTA = Finding("quota", "pods are refused: quota", patience=0.0)


class TestWait:
    def wait(self, monkeypatch: pytest.MonkeyPatch, site: FakeSite, seconds: float = 60) -> tuple[str, list[str]]:
        """Wait as a trial does, without the pauses; return the pod, and what was said meanwhile."""
        said: list[str] = []
        monkeypatch.setattr(trial, "TICK_SECONDS", 0)
        pod = trial._wait(site, Artifact("new", Source(None, dirty=False), None, ()), JOB, said.append, seconds)  # type: ignore[arg-type]
        return pod, said

    def test_ends_with_the_smoke_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the service does by then."""
        site = FakeSite((None, None, ()), look(), look(ready=True), look(service="terminated", asks="terminated"))
        assert self.wait(monkeypatch, site) == ("try-1", ["starting it", "starting it", "asking it"])

    @pytest.mark.parametrize(
        ("seen", "why"),
        [
            (look(service="terminated", found=(CRASH,)), "its container ended: no key"),
            ((None, None, (QUOTA,)), "pods are refused: quota"),
            (("its pod was removed or evicted", None, ()), "its pod was removed or evicted"),
        ],
    )
    def test_tells_at_once_what_does_not_get_ready(
        self, monkeypatch: pytest.MonkeyPatch, seen: tuple[Any, ...], why: str
    ) -> None:
        """It was sent nothing, and the line says why."""
        with pytest.raises(NotReady) as caught:
            self.wait(monkeypatch, FakeSite(look(), seen))
        assert caught.value.why == f"did not get ready in its trial: {why}"

    def test_tells_what_broke_while_it_was_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By then something may have been written."""
        with pytest.raises(DeployFailed, match=r"did not end as it should: its container ended: no key") as caught:
            self.wait(monkeypatch, FakeSite(look(ready=True), look(service="terminated", found=(CRASH,))))
        assert not isinstance(caught.value, NotReady)

    def test_waits_for_what_may_heal_and_for_no_more_than_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A node that comes, a Secret that is on its way."""
        slow = Finding("config", "create the Secret", patience=None)
        assert self.wait(monkeypatch, FakeSite(look(found=(slow,)), look(asks="terminated")))[1] == [
            "create the Secret"
        ]
        with pytest.raises(NotReady, match=r"after 0 s: create the Secret"):
            self.wait(monkeypatch, FakeSite(look(found=(slow,)), timeout=0))
        with pytest.raises(DeployFailed, match=r"did not end as it should: after 0 s"):
            self.wait(monkeypatch, FakeSite(look(ready=True), look(ready=True)), seconds=0)

    def test_ends_without_the_lock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another deploy has it."""
        with pytest.raises(DeployFailed, match="somebody took it"):
            self.wait(monkeypatch, FakeSite(look(), lost="somebody took it"))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"reason": "StartError", "message": 'exec: "python": not found'}, 'StartError: exec: "python": not found'),
        ({"reason": "OOMKilled"}, "OOMKilled"),
    ],
)
def test_tells_how_the_container_that_asks_ended(end: dict[str, str], words: str) -> None:
    """Where it printed nothing."""
    statuses = [{"name": "backend", "state": {"running": {}}}, {"name": "smoke", "state": {"terminated": end}}]
    kubectl = SimpleNamespace(get=lambda *_: [{"status": {"containerStatuses": statuses}}])
    assert trial._last_words(kubectl, "try-1") == words  # type: ignore[arg-type]
