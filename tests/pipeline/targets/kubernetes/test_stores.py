"""The pod that tries a changed StatefulSet beside the one that serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.kustomize import render
from pipeline.targets.kubernetes.stores import config_of, trial_of

ROOT = Path(__file__).parents[4]


@pytest.fixture(name="objects", scope="module")
def _objects() -> list[dict[str, Any]]:
    """What the overlay of kind applies."""
    return render({"resources": [str(ROOT / "k8s/overlays/kind")]})


def one(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("name", ["postgres", "redis"])
class TestTrial:
    def test_runs_what_the_store_would_run(self, name: str, objects: list[dict[str, Any]]) -> None:
        """Its containers, its rights, its settings; and it ends when it fails."""
        store = one(objects, "StatefulSet", name)
        job = trial_of(store)
        there, tried = store["spec"]["template"]["spec"], job["spec"]["template"]["spec"]
        for key in ("containers", "securityContext", "serviceAccountName"):
            assert tried[key] == there[key]
        assert (tried["restartPolicy"], job["spec"]["backoffLimit"]) == ("Never", 0)

    def test_mounts_no_data(self, name: str, objects: list[dict[str, Any]]) -> None:
        """A claim is an empty volume to it; configuration and secrets are the real ones."""
        store = one(objects, "StatefulSet", name)
        volumes = trial_of(store)["spec"]["template"]["spec"]["volumes"]
        assert {"name": "data", "emptyDir": {}} in volumes
        assert "persistentVolumeClaim" not in str(volumes)
        assert [volume for volume in volumes if volume["name"] != "data"] == store["spec"]["template"]["spec"][
            "volumes"
        ]

    def test_is_reached_by_nobody(self, name: str, objects: list[dict[str, Any]]) -> None:
        """No Service and no network policy of the store selects it, and the StatefulSet does not adopt it."""
        labels = trial_of(one(objects, "StatefulSet", name))["spec"]["template"]["metadata"]["labels"].items()
        selectors = [each["spec"].get("selector") or {} for each in objects if each["kind"] == "Service"]
        selectors += [one(objects, "StatefulSet", name)["spec"]["selector"]["matchLabels"]]
        assert [selector for selector in selectors if selector and selector.items() <= labels] == []
        for policy in [each for each in objects if each["kind"] == "NetworkPolicy"]:
            wanted = policy["spec"]["podSelector"].get("matchLabels") or {}
            assert not (wanted and wanted.items() <= labels), policy["metadata"]["name"]


def test_its_configuration_is_known(objects: list[dict[str, Any]]) -> None:
    """That of the store alone, not the service's settings."""
    configs = [each for each in objects if each["kind"] == "ConfigMap"]
    names = [each["metadata"]["name"] for each in config_of(one(objects, "StatefulSet", "postgres"), configs)]
    assert [name.rpartition("-")[0] for name in names] == ["postgres-init"]
