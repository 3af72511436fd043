"""The deploy story on Kubernetes, from the first release to the last."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.engines.kind import REGISTRY
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.notes import NOTES
from tests.project import NAME

pytestmark = pytest.mark.e2e

TABLE = "kind: rolling updates"
EXTRA = """
apiVersion: v1
kind: Service
metadata: {name: extra}
spec: {selector: {app.kubernetes.io/component: nobody}, ports: [{port: 80}]}
"""


@pytest.mark.gate
def test_ships_updates_and_goes_back(deployed: KindCheckout, add_row: AddRow) -> None:
    """Two digests share the traffic of an update, none fails, and a rollback brings the first back."""
    [first] = deployed.answering()
    assert first.startswith("sha256:")
    assert len({one["spec"]["nodeName"] for one in deployed.pods()}) == 2, "one worker runs every replica"
    deployed.write_note("before the update")
    deployed.change("an update")
    outcome = deployed.proved()
    assert set(outcome.traffic["by_release"]) == {first, outcome.release}
    assert deployed.answering() == {outcome.release}
    assert {one["status"]["containerStatuses"][0]["imageID"] for one in deployed.pods()} == {
        f"{REGISTRY}/{NAME}@{outcome.release}"
    }
    inside = outcome.report["inside"]
    assert inside["failed"] == 0, inside["said"]
    assert inside["sent"] > 0
    back = deployed.run("rollback")
    assert (back.code, back.verdict, back.release) == (0, "proved", first), str(back)
    assert deployed.answering() == {first}
    assert deployed.untidy() == []
    for name, one in (("update", outcome), ("rollback", back)):
        seconds = {stage["name"]: stage["seconds"] for stage in one.report["stages"]}
        sent, p95 = one.traffic["sent"], one.traffic["latency_ms"]["p95"]
        facts = f"{sent} requests, 0 failed, p95 {p95:.0f} ms, whole deploy {one.seconds:.1f} s"
        add_row(TABLE, f"{name:10} roll out {seconds['roll out']:4.1f} s, {facts}")


def test_the_page_comes_through_the_gateway(deployed: KindCheckout) -> None:
    """Each of its files, as it is in the repository, and none of them from the service."""
    page = deployed.root / "docker" / "frontend"
    for file in filter(Path.is_file, page.rglob("*")):
        name = file.relative_to(page).as_posix()
        answer = deployed.request("GET", "/" if name == "index.html" else f"/{name}")
        assert answer.content == file.read_bytes(), name
        assert "X-Release" not in answer.headers, name


def test_a_deploy_that_changes_nothing_is_unchanged(deployed: KindCheckout) -> None:
    """No pod is touched."""
    deployed.commit()
    deployed.deploy()
    before = {one["metadata"]["name"] for one in deployed.pods()}
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "unchanged"), str(outcome)
    # The autoscaler may add one meanwhile, on a busy machine.
    assert before <= {one["metadata"]["name"] for one in deployed.pods()}


def test_another_machine_sees_the_releases_and_goes_back(
    deployed: KindCheckout, template: Path, tmp_path: Path
) -> None:
    """What one can roll back to is in the cluster."""
    deployed.change("one to go back from")
    deployed.proved()
    deployed.commit()
    other = KindCheckout.make(template, tmp_path / "other")
    strange = other.deploy()
    assert strange.code == 2, str(strange)
    assert "was made with another one: take .env from whoever deployed there" in strange.problems()[0]
    shutil.copy(deployed.root / ".env", other.root / ".env")
    here, there = (json.loads(one.run("releases", "--json").stdout) for one in (deployed, other))
    numbers = [row["number"] for row in there]  # the cluster keeps fewer of the oldest than who deployed them
    assert numbers
    assert numbers == [row["number"] for row in here][: len(numbers)]
    back = other.run("rollback")
    assert (back.code, back.verdict) == (0, "proved"), str(back)
    assert other.answering() == {back.release}
    assert other.run("doctor").code == 0
    deployed.deploy()


def test_a_hand_edited_object_is_said_and_taken_back(deployed: KindCheckout) -> None:
    """Not `unchanged`: what runs is not what was proved."""
    patch = '{"spec": {"minReadySeconds": 1, "paused": false}}'
    kubectl("patch", "deployment", "backend", "--patch", patch, "--field-manager=somebody")
    outcome = deployed.deploy()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert ".spec.minReadySeconds has since been set by `somebody`: this deploy takes it back" in outcome.stderr
    assert "Deployment backend was also changed by `somebody`" in outcome.stderr
    assert kubectl("get", "deployment", "backend", "--output=jsonpath={.spec.minReadySeconds}") == "3"


def test_a_dry_run_applies_nothing(sound: KindCheckout) -> None:
    """Not even if nobody serves who could say what the database has: it is asked when the deploy is one."""
    kubectl("delete", "deployment", "backend", "--wait")
    sound.settle(LOG_LEVEL="WARNING")
    before = _objects()
    dry = sound.deploy("--dry-run")
    assert (dry.code, dry.verdict) == (0, "unchanged"), str(dry)
    assert "the database is not running: its migrations are compared once it is" in dry.stderr
    assert _objects() == before
    sound.proved()
    assert sound.untidy() == []


def test_what_a_release_no_longer_has_goes(sound: KindCheckout) -> None:
    """After its proof: a Service, and the settings of the release before."""
    sound.write("k8s/overlays/kind/extra.yaml", EXTRA)
    path = sound.root / "k8s/overlays/kind/kustomization.yaml"
    path.write_text(path.read_text().replace("resources: [../../base]", "resources: [../../base, extra.yaml]"))
    sound.proved()
    assert kubectl("get", "service/extra", "--output=name")
    settings = set(kubectl("get", "configmaps", "--output=name").split())
    sound.restore()
    sound.proved()
    assert "NotFound" in kubectl("get", "service/extra", check=False)
    left = set(kubectl("get", "configmaps", "--output=name").split()) - settings
    assert len([one for one in left if "/settings-" in one]) <= 1
    assert sound.untidy() == []


def test_two_deploys_at_once(deployed: KindCheckout, template: Path, tmp_path: Path) -> None:
    """The second one, from another machine, is told who deploys, and touches nothing."""
    other = KindCheckout.make(template, tmp_path / "second")
    shutil.copy(deployed.root / ".env", other.root / ".env")
    deployed.change("two at once")
    first = deployed.start("deploy")
    first.wait_for_stage("check")
    second = other.deploy()
    assert second.code == 75, str(second)
    assert "another deploy holds the lock" in second.problems()[0]
    assert first.finish().verdict == "proved"
    deployed.commit()


def test_a_rotated_secret_rolls(deployed: KindCheckout) -> None:
    """New pods know the new token, and no list of processes, logs or records shows it."""
    deployed.set_env(SERVICE_TOKEN="a-token-of-the-tests-that-is-long-enough")
    outcome = deployed.proved()
    assert "a-token-of" not in outcome.stderr + outcome.stdout
    assert "a-token-of" not in kubectl("get", "configmaps,deployments,pods", "--output=json")
    assert deployed.write_note("after the rotation")["text"] == "after the rotation"
    assert deployed.untidy() == []


def test_without_draining_the_proof_fails(sound: KindCheckout) -> None:
    """The detector detects: pods that leave without draining fail requests, and the deploy says so."""
    sound.settle(DRAIN_SECONDS="0")
    sound.deploy()  # what drains is the release before
    sound.configure(rate=200)
    sound.change("no draining")
    outcome = sound.deploy()
    sound.configure(rate=100)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.traffic["failed"] > 0


def test_down_keeps_the_data(deployed: KindCheckout) -> None:
    """What was written is there after `down` and the next deploy."""
    deployed.deploy()
    written = deployed.write_note("before down")
    admin = str(Path.home() / ".kube/config")
    assert deployed.run("down", KUBECONFIG=admin).code == 0
    assert deployed.pods() == []
    outcome = deployed.deploy()
    assert outcome.code == 0, str(outcome)
    assert deployed.request("GET", f"{NOTES}/{written['id']}").status_code == 200


def _objects() -> dict[str, str]:
    """What is in the namespace, in which version; no pods and no Lease, which change by themselves."""
    kinds = "deployments,statefulsets,services,configmaps,secrets,networkpolicies,jobs,serviceaccounts"
    found = json.loads(kubectl("get", kinds, "--output=json"))["items"]
    return {
        f"{one['kind']}/{one['metadata']['name']}": str(one["metadata"].get("generation") or one["metadata"]["uid"])
        for one in found
    }
