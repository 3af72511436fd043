"""Every way to break a Deployment that is recorded: what `record.py` beside this file applies to a real cluster."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

__all__ = ["FOREIGN_ELF", "OWN_SECURITY", "POD_SECURITY", "READY", "Case", "Json", "cases", "made"]

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
        "settings": command(*python("import sys; print('SERVICE_TOKEN: is short: `nox -s init`'); sys.exit(2)")),
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
