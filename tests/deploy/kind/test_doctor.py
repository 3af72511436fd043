"""What is wrong with what runs on Kubernetes, as `doctor` says it; the account is the deployer."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.deploy.ailing import tells_what_is_wrong
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.logged import shows_the_logs
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e


def test_says_what_is_wrong_with_the_data_stores(deployed: KindCheckout, add_row: AddRow) -> None:
    """By a Job that is gone afterwards, and the way that was opened for it."""
    before = kubectl("get", "networkpolicies", "--output=name")
    started = time.monotonic()
    tells_what_is_wrong(deployed)
    add_row("kind: doctor", f"three runs in {time.monotonic() - started:.0f} s")
    assert kubectl("get", "networkpolicies", "--output=name") == before
    assert deployed.untidy() == []


def test_says_that_the_autoscaler_sees_nothing(deployed: KindCheckout) -> None:
    """Without metrics-server nobody adds a replica; told when it has lasted, as each rollout has a blind while."""
    admin = ("--namespace=kube-system", "scale", "deployment/metrics-server")
    kubectl(*admin, "--replicas=0")

    def told() -> str | None:
        found = deployed.run("doctor", "--json").report["findings"]
        return next((line for line in found if line.startswith("the autoscaler backend does not scale")), None)

    try:
        line = wait_until(told, "doctor says that nothing scales", 300)
    finally:
        kubectl(*admin, "--replicas=1")
    wait_until(lambda: told() is None, "it sees again", 180)  # and the tests after this one have an autoscaler
    assert line is not None
    assert "check that metrics-server runs" in line


def test_says_that_a_claim_is_pending(deployed: KindCheckout) -> None:
    """Of storage that nobody provides, though no pod asks for it yet."""
    spec = {"storageClassName": "nowhere", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}  # fmt: skip
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "nowhere"}, "spec": spec}
    kubectl("apply", "--filename=-", given=json.dumps(claim))

    def told() -> str | None:
        found = deployed.run("doctor", "--json").report["findings"]
        return next((line for line in found if "PersistentVolumeClaim nowhere is pending" in line), None)

    try:
        line = wait_until(told, "doctor says that the claim is pending", 60)
    finally:
        kubectl("delete", "persistentvolumeclaim", "nowhere")
    assert line is not None
    assert "create the storage class nowhere" in line


def test_names_the_last_day_of_its_token(deployed: KindCheckout) -> None:
    """That of the account that deploys: it is no finding while there is time."""
    outcome = deployed.run("doctor")
    assert outcome.code == 0, str(outcome)
    assert re.search(r"the token of context `\S+` ends on \d{4}-\d\d-\d\d at \d\d:\d\d UTC", outcome.stderr), outcome


def test_shows_the_logs(deployed: KindCheckout) -> None:
    """Of each replica, as the engine keeps them."""
    shows_the_logs(deployed)
    assert deployed.untidy() == []
