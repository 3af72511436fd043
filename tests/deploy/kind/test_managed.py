"""A PostgreSQL and a Redis with TLS outside of the cluster, as others manage them: pods reach these, and run none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.engines.kind import CONTEXT, REGISTRY_NAME
from tests.conftest import AddRow
from tests.containers import docker
from tests.deploy.kind.stack import ELSEWHERE, KindCheckout, deployer_config, kubectl, second_environment
from tests.deploy.outside import PASSWORD, Outside, outside
from tests.deploy.rotating import rotates_what_others_manage
from tests.notes import NOTES
from tests.project import NAME

pytestmark = [pytest.mark.e2e, pytest.mark.needs("openssl")]

ENVIRONMENT = "managed"
NETWORK = "kind"  # the nodes', which lead their pods out into it
# As production's: the database's policy is its file, with the address filled in, and Redis' port beside.
SHIPPED, ADDRESS = "k8s/overlays/production/external-database.yaml", "192.0.2.10/32"
PORTS, BOTH = (f"ports: [{{protocol: TCP, port: 5432}}{more}]" for more in ("", ", {protocol: TCP, port: 6379}"))
OVERLAY = f"""
namespace: {ELSEWHERE}
resources: [../../base, outside.yaml]
components: [../../components/gateway]
configMapGenerator:
  - name: settings
    behavior: merge
    options: {{immutable: true}}
    literals: [ENVIRONMENT=development, DRAIN_SECONDS=5]
patches:
  - target: {{kind: HTTPRoute, name: {NAME}}}
    patch: |
      - {{op: add, path: /spec/hostnames, value: [{ENVIRONMENT}.localhost]}}
  - target: {{kind: Deployment, name: backend}}
    patch: |
      - {{op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 100m}}
"""
TRY = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


class ManagedCheckout(KindCheckout):
    """A clone whose environment has its stores elsewhere."""

    environment: ClassVar[str] = ENVIRONMENT


@pytest.fixture(name="managed")
def _managed(made: str, tmp_path: Path) -> Iterator[Outside]:
    """Start both beside the nodes."""
    assert made  # the network is the cluster's
    folder = tmp_path / "outside"
    folder.mkdir()
    with outside(folder, network=NETWORK) as managed:
        yield managed


@pytest.fixture(name="one")
def _one(managed: Outside, template: Path, tmp_path: Path) -> Iterator[ManagedCheckout]:
    """A clone that deploys to a namespace of its own, as the account `deployer` there."""
    clone = KindCheckout.make(template, tmp_path / "clone")
    with second_environment(clone, ENVIRONMENT, context=CONTEXT):
        policy = (clone.root / SHIPPED).read_text(encoding="utf-8")
        assert (policy.count(ADDRESS), policy.count(PORTS)) == (1, 1)
        policy = policy.replace(ADDRESS, f"{managed.host}/32").replace(
            PORTS, f"{PORTS[:-1]}, {{protocol: TCP, port: 6379}}]"
        )
        clone.write(f"k8s/overlays/{ENVIRONMENT}/outside.yaml", policy)
        clone.write(f"k8s/overlays/{ENVIRONMENT}/kustomization.yaml", OVERLAY)
        clone.environ["KUBECONFIG"] = str(deployer_config(tmp_path / "kubeconfig", {CONTEXT: ELSEWHERE}))
        clone.environ["PROJECT_NAME"] = "slipway-test-managed"
        clone.commit()
        one = ManagedCheckout(clone.root, clone.port, clone.environ, clone.asked, host=f"{ENVIRONMENT}.localhost")
        yield one
        for deploy in one.started:  # a test that failed may have left one that runs
            if deploy.process.poll() is None:
                deploy.kill()


def test_are_used_and_nothing_runs_in_their_place(managed: Outside, one: ManagedCheckout, add_row: AddRow) -> None:
    """Deployed, changed, brought back, rotated, taken down: no store runs in the cluster, and the data outlives it."""
    one.set_env(**managed.admit("first"))
    first = one.proved()
    assert "(DATABASE_URL), which others manage" in first.stderr
    assert "(REDIS_URL), which others manage" in first.stderr
    assert PASSWORD not in first.stderr + first.stdout
    assert kubectl("get", "statefulsets,persistentvolumeclaims", "--output=name", namespace=ELSEWHERE) == ""
    ways = [(managed.host, 5432), (managed.host, 6379), (registry(), 5000)]
    assert [reaches(host, port) for host, port in ways] == [True, True, False]
    row = one.write_note("managed")["id"]
    ready = one.request("GET", "/ready").json()["checks"]
    assert {name: ready[name]["state"] for name in ("database", "schema", "redis")} == dict.fromkeys(
        ("database", "schema", "redis"), "ok"
    )
    assert one.run("doctor").code == 0
    assert one.status()["problems"] == []

    one.change("another line")
    one.commit()
    second = one.proved()
    assert second.release != first.release
    assert one.run("rollback").code == 0
    rotates_what_others_manage(one, managed.admit("second"), lambda: managed.dismiss("first"))
    assert one.request("GET", f"{NOTES}/{row}").status_code == 200
    sent = first.traffic["sent"] + second.traffic["sent"]
    add_row("kind: stores that others manage", f"deployed, changed: {sent} requests, 0 failed; brought back, rotated")
    assert one.run("down", KUBECONFIG=str(Path.home() / ".kube/config")).code == 0
    assert managed.notes("managed") == "1"


def registry() -> str:
    """Return the address of a host beside the cluster that the nodes reach, and no pod may."""
    return docker("inspect", "--format", f"{{{{.NetworkSettings.Networks.{NETWORK}.IPAddress}}}}", REGISTRY_NAME)


def reaches(host: str, port: int) -> bool:
    """Return whether a pod of the service opens a connection to there."""
    mine = ("--selector=app.kubernetes.io/component=backend", "--field-selector=status.phase=Running")
    [pod, *_] = kubectl("get", "pods", *mine, "--output=name", namespace=ELSEWHERE).split()
    said = kubectl("exec", pod, "--", "python", "-c", TRY, host, str(port), check=False, namespace=ELSEWHERE)
    assert said == "" or "Error" in said, said
    return said == ""
