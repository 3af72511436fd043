"""Two services of this template in the cluster of this machine; and one that had no host of its own yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.kind import CONTEXT, REGISTRY
from tests.deploy.conftest import AddRow
from tests.deploy.kind.conftest import GATEWAY_API, cluster
from tests.deploy.kind.stack import KindCheckout, deployer_config, image_ids, kubectl
from tests.project import NAME

pytestmark = pytest.mark.e2e

OTHER = "quite-another"
OVERLAY = "k8s/overlays/kind/kustomization.yaml"
ADMIN = {"KUBECONFIG": str(Path.home() / ".kube/config")}


@pytest.fixture(name="other")
def _other(deployed: KindCheckout, template: Path, tmp_path: Path) -> Iterator[KindCheckout]:
    """A renamed clone beside the one that serves; its namespace is not there yet, and is gone afterwards."""
    one = KindCheckout.make(template, tmp_path / "other")
    one.host, one.environ["PROJECT_NAME"] = f"{OTHER}.localhost", "slipway-test-beside"
    assert one.run("rename", OTHER).code == 0
    one.commit()
    yield one
    done = one.run("down", "--volumes", **ADMIN)
    kubectl("delete", "namespace", OTHER, "--ignore-not-found", "--timeout=120s")
    assert done.code == 0, done.stderr


def test_two_services_share_the_cluster(deployed: KindCheckout, other: KindCheckout, add_row: AddRow) -> None:
    """Namespace, images and host are each one's own; the cluster goes only when it is nobody else's."""
    serving = deployed.answering()
    refused = other.deploy(**ADMIN)
    assert refused.code == 2, str(refused)
    assert refused.problems() == [f"the cluster has no namespace {OTHER}: `nox -s cluster` makes it"]

    file = ["--gateway-api", os.environ[GATEWAY_API]] if GATEWAY_API in os.environ else []
    made = other.start_program([sys.executable, "-m", "pipeline", "cluster", *file], **ADMIN).finish(900)
    assert made.code == 0, str(made)
    other.environ["KUBECONFIG"] = str(deployer_config(other.root.with_name("deployer"), {CONTEXT: OTHER}))
    first = other.proved()
    assert first.report["url"] == other.url
    assert image_ids(OTHER) == {f"{REGISTRY}/{OTHER}@{first.release}"}
    assert other.answering() == {first.release}
    assert deployed.answering() == serving

    other.change("beside another service")
    update = other.proved()
    assert (other.answering(), deployed.answering()) == ({update.release}, serving)
    code, output = cluster("down")
    assert code == 2, output
    assert f"other services are in the cluster, in namespace {OTHER}: `nox -s cluster -- down --all`" in output
    assert (other.answering(), deployed.answering()) == ({update.release}, serving)
    sent = [outcome.traffic["sent"] for outcome in (first, update)]
    add_row("two services beside each other", f"kind: {sent} requests to {OTHER}.localhost, none failed")


def test_a_service_that_took_every_host_goes_on(sound: KindCheckout) -> None:
    """As older templates have it: an ordinary deploy gives it a host, and no request fails meanwhile."""
    overlay = (sound.root / OVERLAY).read_text(encoding="utf-8")
    before, patch, _ = overlay.partition("  - target: {kind: HTTPRoute,")
    assert patch
    sound.write(OVERLAY, before)
    older = sound.proved()
    hosts = ("get", "httproute", NAME, "--output=jsonpath={.spec.hostnames}")
    assert kubectl(*hosts) == ""
    assert sound.answering() == {older.release}
    sound.restore()
    sound.proved()
    assert f"{NAME}.localhost" in kubectl(*hosts)
    assert sound.untidy() == []
