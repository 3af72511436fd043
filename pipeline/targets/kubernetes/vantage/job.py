"""The second vantage: a short Job beside the service that asks it, too.

So a failure says who lost the request. The Job also reads what the pods count themselves, so that requests of
users, which the proof does not send, judge the release, too.

Pure: what to apply, how to read its log, and what its view means beside the one from outside. The target applies
`objects` before it changes anything, reads the log with `follow_arguments` (which follows it) in the background, waits
until its first line is there, and deletes the Job when the bake time is over: SIGTERM makes it report what it saw.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.requests import RequestSpec
from pipeline.system.text import shorten
from pipeline.targets.common.tokens import CURRENT
from pipeline.targets.kubernetes.vantage import probe as vantage_probe
from pipeline.targets.kubernetes.vantage.pod import COMPONENT_LABEL, DNS, Json, labels_of, pod_of

__all__ = ["COMPONENT", "NAME", "View", "compare_views", "follow_arguments", "objects", "view_of"]

NAME = COMPONENT = "vantage"
RATE = 10  # requests per second: what a rollout loses lasts for seconds; more would be load
URL = "http://backend:8000"
METRICS = "vantage-metrics"  # a name that leads to each of the pods: the service's own name does not lead to /metrics
METRICS_PORT, METRICS_EVERY = 9090, 2.0  # seconds
SPARE_SECONDS = 60  # for its start and its end; then Kubernetes ends it, even if the deploy was killed
KEPT_SECONDS = 300  # until Kubernetes removes an ended one that no deploy has removed
CONVINCING = 3  # failures to expect inside if the service had lost them: by chance none in 1 of 20 (e^-3)
PORTS = [{"protocol": "TCP", "port": port} for port in (8000, METRICS_PORT)]


def objects(
    image: str, requests: Sequence[RequestSpec], seconds: float, secret: str, *, token: str = CURRENT, url: str = URL
) -> list[Json]:
    """Return what to apply: the script with its orders, the Job that runs it in `image`, and the access that it needs.

    `image` (by digest) must have Python: that of the running release is on the nodes already, and known to start.
    `requests`: its reads are sent. `seconds`: for how long at most. `secret`: the name of the Secret with the service's
    token, `token` the key in it.
    """
    script = Path(vantage_probe.__file__).read_text()
    config = _object(
        "v1", "ConfigMap", data={"probe.py": script, "job.json": json.dumps(_orders(requests, seconds, url))}
    )
    return [_may_reach_backend(), _lets_in(), _pods_by_name(), config, _job(image, seconds, secret, token)]


def follow_arguments() -> list[str]:
    """Return the arguments of `kubectl` that read the Job's log while it grows, to its end."""
    return ["logs", "--follow", f"job/{NAME}", "--pod-running-timeout=60s"]


def _orders(requests: Sequence[RequestSpec], seconds: float, url: str) -> Json:
    reads: list[Json] = [
        {"name": one.name, "path": one.path, "status": one.status, "weight": one.weight, "headers": dict(one.headers)}
        | ({"seconds": one.seconds} if one.seconds else {})
        for one in requests
        if one.method == "GET"
    ]
    # For a table without a read: every service of this pipeline answers `/ready`.
    reads = reads or [{"name": "ready", "path": "/ready", "status": 200, "weight": 1, "headers": {}}]
    token = f"/run/secrets/{CURRENT}"
    metrics = {"host": METRICS, "port": METRICS_PORT, "every": METRICS_EVERY}
    return {"url": url, "rate": RATE, "seconds": seconds, "token_file": token, "requests": reads, "metrics": metrics}


def _object(version: str, kind: str, name: str = NAME, **content: Any) -> Json:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels_of(NAME)}, **content}


def _job(image: str, seconds: float, secret: str, key: str) -> Json:
    # The token makes it synthetic, as the proof is; it needs no other secret.
    token = {"secretName": secret, "items": [{"key": key, "path": CURRENT}], "defaultMode": 0o440}
    volumes: dict[str, Json] = {"/vantage": {"configMap": {"name": NAME}}, "/run/secrets": {"secret": token}}
    pod = pod_of(NAME, image, ["/vantage/probe.py", "/vantage/job.json"], volumes)
    return _object(
        "batch/v1",
        "Job",
        spec={
            "backoffLimit": 0,
            "activeDeadlineSeconds": math.ceil(seconds) + SPARE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels_of(NAME)}, "spec": pod},
        },
    )


def _may_reach_backend() -> Json:
    """Return the policy by which the vantage reaches the service and DNS, and nobody reaches the vantage."""
    egress = [{"to": [_pods("backend")], "ports": PORTS}, DNS]
    spec = {"podSelector": _labelled(COMPONENT), "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": egress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", spec=spec)


def _lets_in() -> Json:
    """Return the policy that lets the vantage into the service and its metrics; it lets nobody else in."""
    ingress = [{"from": [_pods(COMPONENT)], "ports": PORTS}]
    spec = {"podSelector": _labelled("backend"), "policyTypes": ["Ingress"], "ingress": ingress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", "vantage-to-backend", spec=spec)


def _pods_by_name() -> Json:
    """Return the Service whose name leads to each pod of the service, ready or not."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {COMPONENT_LABEL: "backend"},
        "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics"}],
    }
    return _object("v1", "Service", METRICS, spec=spec)


def _labelled(component: str) -> Json:
    return {"matchLabels": {COMPONENT_LABEL: component}}


def _pods(component: str) -> Json:
    return {"podSelector": _labelled(component)}


@dataclass(frozen=True)
class View:
    """What the vantage saw. Times are seconds since the Unix epoch by its node's clock.

    `problem`: why it saw nothing, or not all. `times`: begin and end of the (first thousand) requests that failed.
    """

    sent: int = 0
    ok: int = 0
    failed: int = 0
    by_release: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)  # by kind
    examples: Sequence[Mapping[str, Any]] = ()
    times: Sequence[tuple[float, float]] = ()
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    started: float = 0.0
    finished: float = 0.0
    problem: str = ""


def view_of(log: str) -> View:
    """Return the view with which the `log` of the Job ends; where there is none, a view with its `problem`."""
    lines = [line for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "result" in entry:
            times = [(begin, end) for begin, end in entry["result"]["times"]]
            return View(**{**entry["result"], "times": times})
    if not lines:
        return View(problem="it said nothing: did its pod start?")
    if lines[-1].startswith("{"):
        return View(problem="it ended before it could tell what it saw")
    return View(problem=shorten(lines[-1].strip()))


def compare_views(failed: int, sent: int, inside: View) -> str:
    """Return in one line who lost `failed` of `sent` requests from outside, by the view from `inside` the cluster."""
    if inside.problem or not inside.sent:
        return f"the view from inside the cluster is missing: {inside.problem or 'nothing was sent there'}"
    if inside.failed:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in inside.failures.items())
        failures = f"{inside.failed} of {inside.sent} failed inside the cluster{', too' if failed else ''}: {kinds}"
        nameless = set(inside.failures) == {"dns"}
        return f"{'the cluster’s DNS' if nameless else 'the service'} lost it: {failures}{_first(inside)}"
    answered = f"{_who(inside)} answered {inside.sent} requests inside the cluster without a failure"
    if not failed:
        return answered
    expected = failed / max(sent, 1) * inside.sent
    if expected < CONVINCING:
        return f"the edge may have lost it: {answered}, but {failed} of {sent} would be {expected:.1f} there"
    return f"the edge lost it: {answered}"


def _who(inside: View) -> str:
    return "the same release" if len(inside.by_release) == 1 else "the same releases"


def _first(inside: View) -> str:
    if not inside.examples:
        return ""
    first = min(inside.examples, key=lambda example: float(example["at"]))
    return f" (first: GET {first['path']} → {str(first['detail'])[:120]})"
