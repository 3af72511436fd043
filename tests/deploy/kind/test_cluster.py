"""`nox -s cluster` for real: made, used, mended, removed. Minutes; needs Docker, kind and kubectl."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from pipeline.engines.kind import EDGE_PORT, REGISTRY, REGISTRY_IMAGE, REGISTRY_NAME
from tests.deploy.kind.conftest import cluster
from tests.deploy.kind.stack import kubectl

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[3]
NAME = "cluster-test"
ANSWER_SECONDS = 60


def said(*command: str, given: str | None = None) -> str:
    """What COMMAND says; it must end with 0."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def status(seconds: float = ANSWER_SECONDS) -> int:
    """What the edge answers, a 200 if there is one within SECONDS; 0 is no answer."""
    deadline, code = time.monotonic() + seconds, 0
    while code != 200 and time.monotonic() < deadline:
        try:
            # No service takes that host, if another test has deployed one.
            host = {"Host": f"{NAME}.localhost"}
            code = httpx2.get(f"http://127.0.0.1:{EDGE_PORT}/v2/", headers=host, timeout=2).status_code
        except httpx2.HTTPError:
            code = 0
        time.sleep(0.2)
    return code


def pushed() -> str:
    """An image in the cluster's registry, by digest."""
    repository = f"{REGISTRY}/{NAME}"
    said("docker", "tag", REGISTRY_IMAGE, repository)
    said("docker", "push", repository)
    digests: list[str] = json.loads(said("docker", "image", "inspect", "--format", "{{json .RepoDigests}}", repository))
    said("docker", "rmi", repository)
    return next(one for one in digests if one.startswith(repository))


def manifest(image: str) -> str:
    """A pod of IMAGE behind a Service, a Gateway and a route."""
    labels = {"app": NAME}
    gateway = "gateway.networking.k8s.io/v1"
    container = {"name": "web", "image": image, "readinessProbe": {"httpGet": {"path": "/v2/", "port": 5000}}}
    listener = {"name": "web", "port": 80, "protocol": "HTTP"}
    rule = {"matches": [{"path": {"type": "PathPrefix", "value": "/v2"}}], "backendRefs": [{"name": NAME, "port": 80}]}
    objects: list[dict[str, object]] = [
        {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 5000}]},
        },
        {"apiVersion": gateway, "kind": "Gateway", "spec": {"gatewayClassName": "traefik", "listeners": [listener]}},
        {"apiVersion": gateway, "kind": "HTTPRoute", "spec": {"parentRefs": [{"name": NAME}], "rules": [rule]}},
    ]
    metadata = {"name": NAME, "namespace": NAME, "labels": labels}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}}
    items = [namespace, *({**one, "metadata": metadata} for one in objects)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def test_is_made_used_and_mended(made: str) -> None:
    """One cluster's life, in the order that a user has it: each step needs the one before."""
    assert "next: nox -s deploy -- kind" in made
    assert len(kubectl("top", "nodes", "--no-headers").splitlines()) == 3

    image = pushed()
    kubectl("apply", "--filename=-", given=manifest(image), namespace=NAME)
    kubectl("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=120s", namespace=NAME)
    ran = kubectl("get", "pod", NAME, "--output=jsonpath={..imageID}", namespace=NAME)
    assert ran.endswith(image.partition("@")[2])
    assert status() == 200

    code, output = cluster()
    assert (code, "already up to date" in output) == (0, True), output

    said("docker", "stop", REGISTRY_NAME)
    kubectl("delete", "deployment", "traefik", "--wait", namespace="traefik")
    code, output = cluster("up")
    assert (code, "already up to date" in output) == (0, False), output
    assert status() == 200
    assert said("docker", "inspect", "--format", "{{.State.Running}}", REGISTRY_NAME) == "true"

    said("docker", "rm", "--force", REGISTRY_NAME)  # as `docker container prune` does; the volume has its name
    code, output = cluster("up")
    assert code == 0, output
    said("docker", "pull", image)
    said("docker", "rmi", image)
    kubectl("delete", "namespace", NAME)
