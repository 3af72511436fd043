"""Records how rollouts get stuck on a real cluster, for the tests beside this file.

    python -m tests.pipeline.targets.kubernetes.record CONTEXT IMAGE REGISTRY AUTH_REGISTRY [CASE…]

IMAGE has Python and is on the nodes. REGISTRY and AUTH_REGISTRY are names under which the nodes pull from a registry
without and with authentication; REGISTRY holds `other:1`, an index without an image for the nodes' architecture.
Each case gets a namespace with a healthy Deployment, then a change that breaks it; what `kubectl get` says each second
is kept in `recorded/CASE.json`, as differences from one second to the next, with the end of the broken pod's log.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.targets.kubernetes.rollout.observation import RESOURCES
from tests.pipeline.targets.kubernetes.cases import OWN_SECURITY, POD_SECURITY, READY, Case, Json, cases, made

RECORDED = Path(__file__).parent / "recorded"
SECONDS = 65
BATCH = 7


def deployment(image: str, release: str) -> Json:
    """The healthy one."""
    container = {
        "name": "backend",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": READY.split(),
        "securityContext": dict(OWN_SECURITY),
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
    }
    pod = {"securityContext": POD_SECURITY, "terminationGracePeriodSeconds": 1, "containers": [container]}
    labels = {"app.kubernetes.io/component": "backend"}
    template = {"metadata": {"labels": labels, "annotations": {"slipway/release": release}}, "spec": pod}
    return made(
        "Deployment",
        "backend",
        "apps/v1",
        replicas=1,
        progressDeadlineSeconds=60,
        selector={"matchLabels": labels},
        strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        template=template,
    )


class Cluster:
    """kubectl on one context."""

    def __init__(self, context: str) -> None:
        self.context = context

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output."""
        command = ["kubectl", "--context", self.context, *arguments]
        return subprocess.run(command, input=stdin, text=True, stdout=subprocess.PIPE, check=True).stdout

    def apply(self, objects: Sequence[Json]) -> None:
        """Server-side, as the target does it."""
        said = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.kubectl("apply", "--server-side", "--field-manager=slipway", "-f", "-", stdin=said)

    def log(self, namespace: str) -> str:
        """The last words of the newest pod."""
        pods = json.loads(self.kubectl("-n", namespace, "get", "pods", "-o", "json"))["items"]
        newest = max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])["metadata"]["name"]
        command = ["kubectl", "--context", self.context, "-n", namespace, "logs", newest, "--tail=20"]
        return subprocess.run(command, text=True, capture_output=True, check=False).stdout

    def seen(self) -> dict[str, list[Json]]:
        """All objects that the diagnosis reads, by namespace."""
        found: dict[str, list[Json]] = {}
        for item in json.loads(self.kubectl("get", RESOURCES, "-A", "-o", "json"))["items"]:
            if telling(item):
                found.setdefault(item["metadata"]["namespace"], []).append(trimmed(item))
        return found


KEPT = {
    "metadata": (
        "annotations",
        "creationTimestamp",
        "deletionTimestamp",
        "generation",
        "labels",
        "name",
        "ownerReferences",
        "uid",
    ),
    "Deployment": ("replicas", "progressDeadlineSeconds"),
    "ReplicaSet": ("replicas", "template"),
    "Pod": ("containers", "initContainers", "nodeName", "serviceAccountName", "volumes"),
    "container": ("image", "name", "readinessProbe", "resources"),
    "PodStatus": (
        "conditions",
        "containerStatuses",
        "initContainerStatuses",
        "message",
        "nominatedNodeName",
        "phase",
        "reason",
        "startTime",
    ),
}


def trimmed(item: Json) -> Json:
    """ITEM with what a diagnosis can need."""
    kind = item["kind"]
    item["metadata"] = only(item["metadata"], "metadata")
    if kind == "Event":
        item["metadata"] = {"name": item["metadata"]["name"]}
        for key in ("reportingComponent", "reportingInstance", "source", "action", "apiVersion"):
            item.pop(key, None)
    if kind in KEPT:
        item["spec"] = only(item["spec"], kind)
    if kind == "ReplicaSet":
        item["spec"]["template"] = {"metadata": item["spec"]["template"]["metadata"]}
    if kind == "Pod":
        item["status"] = only(item["status"], "PodStatus")
        item["spec"]["containers"] = [only(one, "container") for one in item["spec"]["containers"]]
        item["spec"]["volumes"] = [one for one in item["spec"].get("volumes", []) if "projected" not in one]
        for one in item["status"].get("containerStatuses", []):
            for key in ("allocatedResources", "resources", "volumeMounts", "user"):
                one.pop(key, None)
    return item


def only(values: Json, kind: str) -> Json:
    """Those VALUES that are kept of a KIND."""
    return {key: value for key, value in values.items() if key in KEPT[kind]}


def telling(item: Json) -> bool:
    """Whether it is more than an event of the usual."""
    usual = item["kind"] == "Event" and item["type"] == "Normal" and item["reason"] != "Killing"
    return not usual


class Recording:
    """The differences from one second to the next."""

    def __init__(self) -> None:
        self.frames: list[Json] = []
        self._last: dict[str, Json] = {}

    def add(self, seconds: float, items: Sequence[Json]) -> None:
        """What was seen SECONDS after the change."""
        now = {f"{item['kind']}/{item['metadata']['name']}": item for item in items}
        changed = [item for key, item in now.items() if self._last.get(key) != item]
        gone = sorted(set(self._last) - set(now))
        if changed or gone:
            self.frames.append({"seconds": round(seconds, 1), "changed": changed, "gone": gone})
        self._last = now

    def text(self, log: str) -> str:
        """As JSON, an object a line: a difference between two recordings can be read."""
        frames = ",\n".join(
            f'{{"seconds": {frame["seconds"]}, "gone": {json.dumps(frame["gone"])}, "changed": [\n'
            + ",\n".join(json.dumps(item, separators=(",", ":")) for item in frame["changed"])
            + "]}"
            for frame in self.frames
        )
        return f'{{"log": {json.dumps(log)}, "frames": [\n{frames}\n]}}\n'


def record(cluster: Cluster, image: str, names: Sequence[str], breaks: Mapping[str, Case]) -> None:
    """One batch: healthy, then broken, then watched."""
    for name in names:
        levels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}}])
        cluster.apply([placed(deployment(image, "old"), name)])
    for name in names:
        cluster.kubectl("-n", name, "rollout", "status", "deployment/backend", "--timeout=120s")
    broken = []
    for name in names:
        new = deployment(image, "new")
        pod = new["spec"]["template"]["spec"]
        more = breaks[name](pod, pod["containers"][0])
        if more:
            cluster.apply([placed(one, name) for one in more])
        broken.append(placed(new, name))
    time.sleep(2)  # an admission rule takes a moment to count
    started, recordings = time.time(), {name: Recording() for name in names}
    cluster.apply(broken)
    while time.time() < started + SECONDS:
        at, found = time.time() - started, cluster.seen()
        for name, recording in recordings.items():
            recording.add(at, found.get(name, []))
        time.sleep(max(0.0, started + at + 1 - time.time()))
    RECORDED.mkdir(exist_ok=True)
    for name, recording in recordings.items():
        (RECORDED / f"{name}.json").write_text(recording.text(cluster.log(name)))
    cluster.kubectl("delete", "namespace", *names, "--wait=false")


def placed(item: Json, namespace: str) -> Json:
    """ITEM in NAMESPACE."""
    return {**item, "metadata": {**item["metadata"], "namespace": namespace}}


def main() -> None:
    """See the module."""
    context, image, registry, auth, *asked = sys.argv[1:]
    breaks = cases(registry, auth)
    names = asked or list(breaks)
    cluster = Cluster(context)
    for start in range(0, len(names), BATCH):
        record(cluster, image, names[start : start + BATCH], breaks)


if __name__ == "__main__":
    main()
