"""Who reaches whom on Kubernetes, by trying; and what the namespace refuses."""

from __future__ import annotations

import json

import pytest

from pipeline.engines.kind import REGISTRY_NAME
from tests.containers import docker
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.project import NAME

pytestmark = pytest.mark.e2e

TRY = """
import socket, sys
for place in sys.argv[1:]:
    host, port = place.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 2).close()
        print(place, "open")
    except OSError:
        print(place, "closed")
"""


def pod(name: str, image: str, component: str, places: list[str]) -> str:
    """A pod that obeys `restricted`, is labelled as COMPONENT and tries PLACES."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {
        "name": "try",
        "image": image,
        "command": ["python", "-c", TRY, *places],
        "securityContext": security,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    labels = {"app.kubernetes.io/component": component, "app.kubernetes.io/name": NAME}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})


def tried(name: str, image: str, component: str, places: list[str]) -> dict[str, str]:
    """What a pod of COMPONENT found: place → open or closed."""
    kubectl("apply", "--filename=-", given=pod(name, image, component, places))
    try:
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=90s")
        return dict(line.split() for line in kubectl("logs", name).splitlines())
    finally:
        kubectl("delete", "pod", name, "--now")


@pytest.fixture(name="places")
def _places(deployed: KindCheckout) -> dict[str, str]:
    """Addresses by number: a stranger who may not ask for names must not be safe by that alone."""
    names = {"backend": 8000, "postgres": 5432, "redis": 6379, "frontend": 3000}
    found = {}
    for name, port in names.items():
        [address, *_] = [one["status"]["podIP"] for one in deployed.pods(name)]
        found[name] = f"{address}:{port}"
    found["metrics"] = f"{deployed.pods()[0]['status']['podIP']}:9090"
    address = docker("inspect", "--format", "{{.NetworkSettings.Networks.kind.IPAddress}}", REGISTRY_NAME)
    found["outside"] = f"{address}:5000"  # a host beside the cluster that the nodes reach
    return found


def test_a_stranger_reaches_nothing(deployed: KindCheckout, places: dict[str, str]) -> None:
    """Neither the data, nor metrics, nor the service past the edge, nor the outside."""
    image = deployed.pods()[0]["spec"]["containers"][0]["image"]
    found = tried("stranger", image, "stranger", list(places.values()))
    assert set(found.values()) == {"closed"}, found


def test_the_service_reaches_its_data_and_nothing_else(deployed: KindCheckout, places: dict[str, str]) -> None:
    """The arrows of the picture, and no other."""
    image = deployed.pods()[0]["spec"]["containers"][0]["image"]
    # The closed one first: a policy takes a moment to open the way for a new pod.
    as_migrate = tried("as-migrate", image, "migrate", [places["redis"], places["postgres"]])
    assert as_migrate == {places["postgres"]: "open", places["redis"]: "closed"}
    wanted = {
        places[name]: "open" if name in ("postgres", "redis") else "closed" for name in places if name != "backend"
    }
    code = f"import sys; sys.argv = ['', *{list(wanted)!r}]\n{TRY}"
    said = kubectl("exec", deployed.pods()[1]["metadata"]["name"], "--", "python", "-c", code)
    assert dict(line.split() for line in said.splitlines()) == wanted


def test_a_pod_that_breaks_restricted_is_refused(deployed: KindCheckout) -> None:
    """By the namespace, whoever makes it."""
    del deployed
    privileged = {"name": "p", "image": "x", "securityContext": {"privileged": True}}
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [privileged]}}
    said = kubectl("apply", "--filename=-", check=False, given=json.dumps(bad))
    assert 'violates PodSecurity "restricted' in said
