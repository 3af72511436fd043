"""The pod that tries a release: what it has of the service, and who is kept from it."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

import pytest

from pipeline.config.requests import parse_requests
from pipeline.engines.kustomize import render
from pipeline.errors import DeployFailed
from pipeline.images.build import PushedImages
from pipeline.proof.packed import pack_smoke
from pipeline.system.git import Source
from pipeline.targets.kubernetes.release import Release
from pipeline.targets.kubernetes.trial import NAME, selects, trial_objects
from tests.services import ROOT

IMAGES = PushedImages("registry/app", *(f"sha256:{digit * 64}" for digit in "123"))
SPECS = parse_requests([{"name": "list", "method": "GET", "path": "/things"}])
ARCHIVE = pack_smoke(SPECS, "http://127.0.0.1:8000", "/run/secrets/SERVICE_TOKEN", wait=60, tries=1)
Objects = list[dict[str, Any]]


@pytest.fixture(name="manifests", params=["kind", "production"])
def _manifests(request: pytest.FixtureRequest) -> Objects:
    """What an overlay applies."""
    return render({"resources": [str(ROOT / "k8s/overlays" / request.param)]})


def tried(manifests: Objects) -> Objects:
    """Return what the trial of a release with these `manifests` applies."""
    return trial_objects(Release("new", IMAGES, Source(None, dirty=False), None, [], {}, manifests), ARCHIVE, 300.5)


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
        assert pod["volumes"][:-1] == there["volumes"]
        assert pod["terminationGracePeriodSeconds"] == 5
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
        assert {f"{NAME}-{name}" for name in about} == set(own)
        assert "dns" in about
        for name in about:
            copy = own[f"{NAME}-{name}"]
            assert selects(copy["podSelector"], labels)
            assert not selects(copy["podSelector"], was)
            assert {**copy, "podSelector": None} == {**there[name], "podSelector": None}
        for name in ("to-postgres", "to-redis"):
            for rule in there.get(name, {}).get("ingress", [{}])[0].get("from", [])[:1]:
                assert selects(rule["podSelector"], labels)

    def test_carries_the_smoke_test(self, manifests: Objects) -> None:
        """As a file that the second container runs, of a size that a ConfigMap may have."""
        objects = tried(manifests)
        content = base64.b64decode(of(objects, "ConfigMap")["binaryData"]["smoke.pyz"])
        assert json.loads(zipfile.ZipFile(io.BytesIO(content)).read("orders.json"))["requests"][0]["path"] == "/things"
        assert len(json.dumps(objects)) < 2**18
        pod = of(objects, "Job")["spec"]["template"]["spec"]
        [mount] = [one for one in pod["containers"][1]["volumeMounts"] if one["name"] == NAME]
        assert pod["containers"][1]["command"][-1] == f"{mount['mountPath']}/smoke.pyz"
        assert pod["volumes"][-1] == {"name": NAME, "configMap": {"name": NAME}}

    def test_all_goes_by_one_label(self, manifests: Objects) -> None:
        """That is how it is removed."""
        for one in tried(manifests):
            assert one["metadata"]["labels"]["app.kubernetes.io/name"] == NAME

    def test_refuses_a_service_that_would_select_it(self, manifests: Objects) -> None:
        """People would be sent to what is only tried."""
        of(manifests, "Service", "backend")["spec"]["selector"].pop("app.kubernetes.io/name")
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
