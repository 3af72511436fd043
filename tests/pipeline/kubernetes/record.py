"""Records how rollouts get stuck on a real cluster, for the tests beside this file.

    python -m tests.pipeline.kubernetes.record CONTEXT IMAGE REGISTRY AUTH_REGISTRY [CASE…]

IMAGE has Python and is on the nodes. REGISTRY and AUTH_REGISTRY are names under which the nodes pull from a registry
without and with authentication; REGISTRY holds `other:1`, an index without an image for the nodes' architecture.
Each case gets a namespace with a healthy Deployment, then a change that breaks it; what `kubectl get` says each second
is kept in `recorded/CASE.json`, as differences from one second to the next, with the end of the broken pod's log.
"""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.targets.kubernetes.observation import RESOURCES

RECORDED = Path(__file__).parent / "recorded"
SECONDS = 65
BATCH = 7
OWN_SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_SECURITY = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
Json = dict[str, Any]
Case = Callable[[Json, Json], list[Json]]  # (pod spec, its container), changed in place → more objects, before it

# An ELF header that says RISC-V (243).
FOREIGN_ELF = (
    b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 243, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0)
)
READY = "python -m http.server 8000 --directory /tmp"
ANSWERS = """
import http.server, json, sys, time
started, seconds = time.time(), float(sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = time.time() - started < seconds
        self.send_response(503 if bad else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"checks": {"database": {"state": "failed" if bad else "ok"}}}).encode())
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""


def python(code: str, *arguments: str) -> list[str]:
    """The command that runs CODE."""
    return ["python", "-c", code, *arguments]


def cases(registry: str, auth: str) -> dict[str, Case]:
    """Every way to break it."""

    def command(*words: str) -> Case:
        return lambda _, container: container.update(command=list(words)) or []

    def image(name: str) -> Case:
        return lambda _, container: container.update(image=name, imagePullPolicy="Always") or []

    def env(**source: Json) -> Case:
        def change(_: Json, container: Json) -> list[Json]:
            container["env"] = [{"name": "VALUE", "valueFrom": source}]
            return [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}, "stringData": {"A": "b"}}]

        return change

    return {
        "good": lambda *_: [],
        "image-missing": image(f"{registry}/nothing:1"),
        "image-digest": image(f"{registry}/other@sha256:{'0' * 64}"),
        "image-denied": image(f"{auth}/private:1"),
        "image-no-host": image("registry.invalid/slipway:1"),
        "image-name": image("Registry/Slipway:1"),
        "image-platform": image(f"{registry}/other:1"),
        "exec-format": exec_format,
        "start-error": command("no-such-program"),
        "crash": command(*python("raise RuntimeError('cannot work')")),
        "crash-heals": crash_heals,
        "settings": command(*python("import sys; print('JWT_SECRET_KEY: is short: `nox -s init`'); sys.exit(2)")),
        "oom": oom,
        "cpu": lambda _, container: container.update(resources=requests(cpu="999")) or [],
        "node-selector": lambda pod, _: pod.update(nodeSelector={"disk": "golden"}) or [],
        "quota": lambda *_: [made("ResourceQuota", "small", hard={"pods": "1"})],
        "limit-range": limit_range,
        "pod-security": lambda _, container: container["securityContext"].update(allowPrivilegeEscalation=True) or [],
        "policy": policy,
        "webhook-away": webhook_away,
        "service-account": lambda pod, _: pod.update(serviceAccountName="nobody") or [],
        "secret-missing": env(secretKeyRef={"name": "not-there", "key": "A"}),
        "key-missing": env(secretKeyRef={"name": "there", "key": "B"}),
        "config-missing": env(configMapKeyRef={"name": "not-there", "key": "A"}),
        "mount-missing": lambda pod, container: volume(pod, container, secret={"secretName": "not-there"}),
        "claim-pending": claim_pending,
        "never-ready": command(*python(ANSWERS, "999")),
        "ready-late": command(*python(ANSWERS, "15")),
        "wrong-path": lambda _, container: container["readinessProbe"]["httpGet"].update(path="/no-such") or [],
        "exec-probe": exec_probe,
        "liveness": liveness,
    }


def made(kind: str, name: str, version: str = "v1", **spec: Any) -> Json:
    """An object with a `spec`."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def requests(**amounts: str) -> Json:
    """Resources."""
    return {"requests": amounts, "limits": amounts}


def volume(pod: Json, container: Json, **source: Json) -> list[Json]:
    """Mount SOURCE at /mounted."""
    pod["volumes"] = [{"name": "mounted", **source}]
    container["volumeMounts"] = [{"name": "mounted", "mountPath": "/mounted"}]
    return []


def exec_format(pod: Json, container: Json) -> list[Json]:
    """A program for a machine that no node is."""
    program = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "program"}}
    program["binaryData"] = {"program": base64.b64encode(FOREIGN_ELF).decode()}
    volume(pod, container, configMap={"name": "program", "defaultMode": 0o755})
    container["command"] = ["/mounted/program"]
    return [program]


def crash_heals(pod: Json, container: Json) -> list[Json]:
    """Two crashes, as of a service whose database is away, then it works."""
    volume(pod, container, emptyDir={})
    script = f"echo x >> /mounted/tries; [ $(wc -l < /mounted/tries) -gt 2 ] && exec {READY}; echo no database; exit 1"
    container["command"] = ["sh", "-c", script]
    return []


def oom(_: Json, container: Json) -> list[Json]:
    """More memory than its limit."""
    container.update(command=python("held = b'x' * 10**9"), resources=requests(memory="48Mi"))
    return []


def limit_range(_: Json, container: Json) -> list[Json]:
    """More CPU than one container may have."""
    container["resources"] = requests(cpu="500m")
    return [made("LimitRange", "limits", limits=[{"type": "Container", "max": {"cpu": "100m"}}])]


def policy(_: Json, container: Json) -> list[Json]:
    """An administrator's rule against it."""
    container["command"] = ["sh", "-c", f"true forbidden; {READY}"]
    rule = made(
        "ValidatingAdmissionPolicy",
        "no-forbidden",
        "admissionregistration.k8s.io/v1",
        matchConstraints={"resourceRules": [rules()]},
        validations=[
            {
                "expression": "!object.spec.containers.exists(c, c.command.exists(w, w.contains('forbidden')))",
                "message": "commands must not be forbidden",
            }
        ],
    )
    bound = made(
        "ValidatingAdmissionPolicyBinding",
        "no-forbidden",
        "admissionregistration.k8s.io/v1",
        policyName="no-forbidden",
        validationActions=["Deny"],
        matchResources={"namespaceSelector": in_namespace("policy")},
    )
    return [rule, bound]


def webhook_away(_: Json, container: Json) -> list[Json]:
    """An admission webhook that must answer and does not."""
    container["command"] = ["sh", "-c", f"true; {READY}"]
    hook = {
        "name": "away.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"service": {"name": "away", "namespace": "webhook-away"}},
        "rules": [rules()],
        "namespaceSelector": in_namespace("webhook-away"),
    }
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "away"},
            "webhooks": [hook],
        }
    ]


def rules() -> Json:
    """Creations of pods."""
    return {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def in_namespace(name: str) -> Json:
    """A selector of one namespace."""
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def claim_pending(pod: Json, container: Json) -> list[Json]:
    """A volume of a storage class that the cluster does not have."""
    volume(pod, container, persistentVolumeClaim={"claimName": "data"})
    size = {"requests": {"storage": "1Mi"}}
    return [
        made("PersistentVolumeClaim", "data", accessModes=["ReadWriteOnce"], storageClassName="golden", resources=size)
    ]


def exec_probe(_: Json, container: Json) -> list[Json]:
    """A probe whose output says what is wrong."""
    says = 'print(503, \'{"checks": {"database": {"state": "failed", "detail": "refused"}}}\'); raise SystemExit(1)'
    container["readinessProbe"] = {"exec": {"command": python(says)}, "periodSeconds": 2, "timeoutSeconds": 2}
    return []


def liveness(_: Json, container: Json) -> list[Json]:
    """A process that lives and does not answer, which its liveness probe ends."""
    container["command"] = ["sleep", "999"]
    container["livenessProbe"] = {"tcpSocket": {"port": 8000}, "periodSeconds": 1, "failureThreshold": 2}
    return []


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
