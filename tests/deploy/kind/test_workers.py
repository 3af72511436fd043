"""A Deployment of the overlay that runs the release's image: a worker, rolled, watched and taken back with it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl

pytestmark = pytest.mark.e2e

TABLE = "kind: a worker"
WORKER = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: worker
  labels: {app.kubernetes.io/name: worker, app.kubernetes.io/component: worker}
spec:
  replicas: 1
  selector:
    matchLabels: {app.kubernetes.io/name: worker}
  template:
    metadata:
      labels: {app.kubernetes.io/name: worker, app.kubernetes.io/component: worker}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: worker
          image: backend
          command: [python, -c, "CODE"]
          securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
          resources:
            requests: {cpu: 10m, memory: 32Mi}
            limits: {memory: 128Mi}
"""
WORKS = "import time; time.sleep(100000)"
ENDS = {
    "exits 1 at once": "import sys; print('no queue'); sys.exit(1)",
    "ends while it is proved": "import sys, time; time.sleep(8); print('no queue'); sys.exit(1)",
}


def write(one: KindCheckout, code: str) -> None:
    """Write the worker into its overlay."""
    (one.root / "k8s/overlays/kind/worker.yaml").write_text(WORKER.replace("CODE", code))
    path = one.root / "k8s/overlays/kind/kustomization.yaml"
    text = path.read_text()
    if "worker.yaml" not in text:
        path.write_text(text.replace("resources: [../../base]", "resources: [../../base, worker.yaml]", 1))


@pytest.fixture(scope="module")
def working(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The clone, with a worker that is proved; without it afterwards."""
    write(deployed, WORKS)
    deployed.proved()
    yield deployed
    deployed.restore()
    deployed.proved()
    assert kubectl("get", "deployment", "worker", "--ignore-not-found", "--output=name") == ""


def test_it_is_rolled_with_the_release(working: KindCheckout) -> None:
    """It runs the image that answers, is in `status`, and the next release's after a deploy."""
    working.change("a new release")
    outcome = working.proved()
    path = "--output=jsonpath={.spec.template.spec.containers[0].image}"
    assert kubectl("get", "deployment", "worker", path) == working.deployed_image()
    [shown] = json.loads(working.run("status", "--json").stdout)["workers"]
    assert (shown["release"], shown["ready"]) == (outcome.release, True)


@pytest.mark.parametrize("name", ENDS)
def test_one_that_ends_takes_the_release_back(name: str, working: KindCheckout, add_row: AddRow) -> None:
    """The reason is its last words, and the old worker runs again."""
    old = working.answering()
    write(working, ENDS[name])
    working.configure(bake_seconds=12)
    outcome = working.deploy()
    working.configure(bake_seconds=3)
    write(working, WORKS)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "no queue" in outcome.reason, str(outcome)
    assert working.answering() == old
    assert kubectl("get", "deployment", "worker", "--output=jsonpath={.status.readyReplicas}") == "1"
    assert working.untidy() == []
    add_row(TABLE, f"{name:30} undone in {outcome.seconds:4.1f} s: {outcome.reason[:90]}")
