"""`k8s/bootstrap/logs` for real: lines arrive though the store is away and the collector is killed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from pipeline.engines.kustomize import render
from tests.containers import docker
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import kubectl
from tests.deploy.kind.watching import forwarded, load
from tests.deploy.machine import wait_until
from tests.services import ROOT

pytestmark = pytest.mark.e2e

ROWS = "kind: logs"
LINES, A_SECOND, AWAY_SECONDS = 100_000, 1000, 45
SPACE = "logs-test"  # of who writes, and of the store
STORE, WRITER = "victoriametrics/victoria-logs:v1.52.1", "python:3.13-slim-trixie"
COLLECTOR = "otel/opentelemetry-collector-contrib:0.161.0"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LONG = 1_000_000  # containerd cuts it into 62
ADDRESS = f"http://store.{SPACE}:9428/insert/opentelemetry/v1/logs"
# As the service writes, a request a line; and what a collector has to bear.
WRITE = f"""
import json, sys, time
garbage = {{"n": -1, "release": {{"not": "text"}}, "trace_id": "garbage"}}
for line in ("no JSON at all", "{{ no JSON either", json.dumps(garbage)):
    print(line)
print(json.dumps({{"event": "long", "text": "x" * {LONG}, "release": "r1"}}))
began = time.monotonic()
for n in range({LINES}):
    line = {{"n": n, "level": "info", "event": "request", "release": "r1", "request_id": f"id-{{n}}",
            "trace_id": {TRACE!r}, "path": "/api/v1/things", "filler": "y" * 120}}
    print(json.dumps(line))
    if n % 100 == 99:
        sys.stdout.flush()
        time.sleep(max(0, began + n / {A_SECOND} - time.monotonic()))
print("the end", flush=True)
time.sleep(3600)
"""


def objects(*manifests: dict[str, Any]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})


def store() -> str:
    """VictoriaLogs, with what it has on a claim: it comes back with it."""
    labels = {"app": "store"}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    container = {
        "name": "store", "image": STORE, "imagePullPolicy": "IfNotPresent", "args": ["-storageDataPath=/data"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 9428}, "periodSeconds": 1},
    }  # fmt: skip
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "store"}}]
    pod = {"metadata": {"labels": labels},
           "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], "volumes": volumes}}  # fmt: skip
    deployment = {"replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": labels}, "template": pod}
    named = {"metadata": {"name": "store", "namespace": SPACE}}
    return objects(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **named, "spec": claim},
        {"apiVersion": "v1", "kind": "Service", **named, "spec": {"selector": labels, "ports": [{"port": 9428}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", **named, "spec": deployment},
    )


def writer() -> str:
    container = {"name": "writer", "image": WRITER, "imagePullPolicy": "IfNotPresent",
                 "command": ["python", "-c", WRITE]}  # fmt: skip
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}
    return objects(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer", "namespace": SPACE}, "spec": spec}
    )


def agent() -> str:
    """What an administrator applies, with his address, and the way to its port."""
    literals = [f"LOGS_ENDPOINT={ADDRESS}", "TRACES_ENDPOINT=http://nowhere.invalid/v1/traces"]
    merged = {"name": "addresses", "behavior": "merge", "literals": literals}
    way = [{"op": "add", "path": "/spec/egress/-", "value": {"ports": [{"protocol": "TCP", "port": 9428}]}}]
    patch = {"target": {"kind": "NetworkPolicy", "name": "collector"}, "patch": json.dumps(way)}
    folder = {"resources": [ROOT / "k8s/bootstrap/logs"], "namespace": "logs"}
    return objects(*render({**folder, "configMapGenerator": [merged], "patches": [patch]}))


@pytest.fixture(scope="module")
def shipped(made: str) -> Iterator[str]:
    """The address of a store that gets the lines of all containers."""
    assert made
    load(STORE, WRITER, COLLECTOR)
    kubectl("apply", "--server-side", "--filename=-", given=store(), namespace=SPACE)
    kubectl("rollout", "status", "deployment/store", "--timeout=120s", namespace=SPACE)
    kubectl("apply", "--server-side", "--filename=-", given=agent(), namespace="logs")
    kubectl("rollout", "status", "daemonset/collector", "--timeout=120s", namespace="logs")
    with forwarded(SPACE, "service/store", 9428) as address:
        yield address
    for namespace in ("logs", SPACE):
        kubectl("delete", "namespace", namespace, "--timeout=120s")


def asked(address: str, query: str) -> list[dict[str, Any]]:
    """What the store has for QUERY."""
    answer = httpx2.get(f"{address}/select/logsql/query", params={"query": query}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def kill_collector(node: str) -> None:
    """With -9, by its process on the node: the image has no shell."""
    docker("exec", node, "kill", "-9", process_of_collector(node))


def process_of_collector(node: str) -> str:
    """The id of its process on the node."""
    return docker("exec", node, "pgrep", "--exact", "otelcol-contrib")


def test_nothing_is_lost(shipped: str, add_row: AddRow) -> None:
    """With the store away for a while, files that are rotated, and a collector that is killed meanwhile."""
    kubectl("apply", "--server-side", "--filename=-", given=writer(), namespace=SPACE)
    kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=120s", namespace=SPACE)
    node = kubectl("get", "pod", "writer", "--output=jsonpath={.spec.nodeName}", namespace=SPACE)
    time.sleep(10)
    kubectl("scale", "deployment/store", "--replicas=0", namespace=SPACE)
    kubectl("wait", "--for=delete", "pod", "--selector=app=store", "--timeout=60s", namespace=SPACE)
    time.sleep(AWAY_SECONDS / 2)
    kill_collector(node)
    time.sleep(AWAY_SECONDS / 2)
    kubectl("scale", "deployment/store", "--replicas=1", namespace=SPACE)
    kubectl("rollout", "status", "deployment/store", "--timeout=120s", namespace=SPACE)
    of_writer = '{"k8s.pod.name"="writer"}'
    with forwarded(SPACE, "deployment/store", 9428) as address:  # the pod is another one
        wait_until(lambda: asked(address, f'{of_writer} "the end"'), "the last line arrives", 300)
        time.sleep(5)
        found = Counter(one["request_id"] for one in asked(address, f"{of_writer} release:r1 | fields request_id")
                        if one.get("request_id"))  # fmt: skip
        lost, doubled = LINES - len(found), sum(found.values()) - len(found)
        add_row(ROWS, f"{LINES} sent, {len(found)} found, {lost} lost, {doubled} doubled; store away {AWAY_SECONDS} s")
        assert lost == 0
        odd(address, of_writer)


def odd(address: str, of_writer: str) -> None:
    """What is no JSON, is long or has garbage in it arrives as it was; what one looks for is a field."""
    [line] = asked(address, f'{of_writer} "id-77" | fields _msg, release, trace_id, level, "k8s.namespace.name",'
                   ' "k8s.container.name", severity | limit 1')  # fmt: skip
    assert (line["release"], line["trace_id"], line["k8s.container.name"]) == ("r1", TRACE, "writer")
    assert line["k8s.namespace.name"] == SPACE
    assert json.loads(line["_msg"])["n"] == 77
    [long] = asked(address, f'{of_writer} "long" | limit 1')
    assert json.loads(long["_msg"])["text"] == "x" * LONG
    for text in ("no JSON at all", "{ no JSON either"):
        assert asked(address, f"{of_writer} {json.dumps(text)} | limit 1"), text
    [garbage] = asked(address, f'{of_writer} "garbage" | limit 1')
    assert not {"trace_id", "release"} & garbage.keys()


def test_the_collector_may_write_one_folder_and_ask_nobody(shipped: str) -> None:
    """It runs as root of nothing: no capability, no token, and no way past the policies."""
    assert shipped
    [pod, *_] = json.loads(kubectl("get", "pods", "--output=json", namespace="logs"))["items"]
    node = pod["spec"]["nodeName"]
    pid = process_of_collector(node)
    status = docker("exec", node, "cat", f"/proc/{pid}/status")
    [effective] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
    assert int(effective, 16) == 0
    mounts = docker("exec", node, "cat", f"/proc/{pid}/mounts").splitlines()
    assert not [line for line in mounts if "serviceaccount" in line]
    written = [line.split()[1] for line in mounts if "rw," in line.split()[3] and line.split()[1].startswith("/var")]
    assert written == ["/var/lib/collector"]
