"""The trial on Kubernetes: a pod of the service that no Service selects, with the smoke test as a second container.

It is the pod of the Deployment under another name, so that it has the settings, secrets and network of the service, and
counts in no ReplicaSet, autoscaler or disruption budget.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, Unreachable, describe, name_of
from pipeline.errors import DeployFailed
from pipeline.proof.packed import pack_smoke
from pipeline.proof.smoke import Smoked, smoke_limit, smoked_of
from pipeline.releases.model import Artifact, short
from pipeline.system.waiting import Deadline
from pipeline.targets.kubernetes.job import why_waiting
from pipeline.targets.kubernetes.objects import FIRST
from pipeline.targets.kubernetes.release import SERVICE, Release
from pipeline.targets.kubernetes.rollout.diagnosis import Patience
from pipeline.targets.kubernetes.rollout.observation import Json, named
from pipeline.targets.kubernetes.site import Site

__all__ = ["remove_trial", "selects", "trial_objects", "try_pod"]

NAME = "try-backend"
ASKS = "smoke"  # the container that asks
FOLDER = "/trial"
NAME_LABEL = "app.kubernetes.io/name"
TOKEN_FILE = "/run/secrets/SERVICE_TOKEN"  # noqa: S105 - a path
DRAIN = "DRAIN_SECONDS"
BASE = "http://127.0.0.1:8000"
TICK_SECONDS = 0.5
GRACE_SECONDS = 5  # nobody waits for an answer of it
SPARE_SECONDS = 60  # for its image, and its end; then Kubernetes ends it, even if the deploy was killed
KEPT_SECONDS = 300  # until Kubernetes removes an ended one that no deploy has removed
KINDS = "jobs,configmaps,networkpolicies"
EARLY = [kind for kind in FIRST if kind not in ("Service", "StatefulSet")]  # what its pod may name


def try_pod(site: Site, new: Artifact, journal: Path, watch: Callable[[str], None], *, tries: int) -> Smoked:
    """See `pipeline.targets.common.roles.Fleet.trial`."""
    release, kubectl = site.kept.find(new.name), site.kubectl
    seconds = smoke_limit(new.requests, tries)
    archive = pack_smoke(new.requests, BASE, TOKEN_FILE, wait=site.env.timeout, tries=tries)
    objects = trial_objects(release, archive, site.env.timeout + seconds + SPARE_SECONDS)
    # Before the rollout applies the rest: what is there serves others, and what is not, nobody reads yet.
    needed = release.objects(EARLY)
    there = {(one["kind"], name_of(one)) for one in site.live(needed)}
    absent = [one for one in needed if (one["kind"], name_of(one)) not in there]
    kubectl.apply([*absent, *objects])
    try:
        pod = _wait(site, new, watch, seconds)
        smoked = smoked_of(kubectl.ask("logs", named(pod), f"--container={ASKS}"), journal)
        if smoked is None:
            raise DeployFailed(f"the trial of release {short(new.name)} broke off: {why_waiting(pod)}")
        return smoked
    finally:
        remove_trial(site.kubectl)


def trial_objects(release: Release, archive: bytes, seconds: float) -> list[Object]:
    """Return what to apply: the Job, the `archive` that it runs, and the network of the service for its pod.

    `seconds`: for how long at most. Raise `DeployFailed` where a Service would select the pod.
    """
    [deployment] = [one for one in release.objects(["Deployment"]) if name_of(one) == SERVICE]
    template: Object = json.loads(json.dumps(deployment["spec"]["template"]))
    was = template["metadata"].get("labels", {})
    labels = {**was, NAME_LABEL: NAME}
    for one in release.objects(["Service"]):
        if one["spec"].get("selector") and selects({"matchLabels": one["spec"]["selector"]}, labels):
            raise DeployFailed(
                f"{describe(one)} selects by {', '.join(one['spec']['selector'])} alone, and would send people to a"
                f" release that is only tried: add `{NAME_LABEL}` to its selector"
            )
    template["metadata"]["labels"] = labels
    spec = template["spec"]
    service = next(one for one in spec["containers"] if one["name"] == SERVICE)
    own = [one for one in service.get("env", ()) if one["name"] != DRAIN]
    service["env"] = [*own, {"name": DRAIN, "value": "0"}]  # it has nobody to wait for
    spec["containers"].append(_asks(service))
    spec["volumes"] = [*spec.get("volumes", []), {"name": NAME, "configMap": {"name": NAME}}]
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE_SECONDS}
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": int(seconds),
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": template,
    }
    packed = {"smoke.pyz": base64.b64encode(archive).decode()}
    network = [_policy(one) for one in release.objects(["NetworkPolicy"]) if _about(one, was)]
    return [
        _object("v1", "ConfigMap", labels, binaryData=packed),
        *network,
        _object("batch/v1", "Job", labels, spec=job),
    ]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label `selector` of Kubernetes matches `labels`."""
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(_holds(one, labels) for one in selector.get("matchExpressions", ()))


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    within = labels.get(rule["key"]) in rule["values"] if "values" in rule else rule["key"] in labels
    return within != (rule["operator"] in ("NotIn", "DoesNotExist"))


def _object(version: str, kind: str, labels: Mapping[str, str], name: str = NAME, **content: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, **content}


def _asks(service: Object) -> Object:
    """Return the container that asks the `service` beside it: on its image, with its rights and its secrets."""
    return {
        "name": ASKS,
        "image": service["image"],
        "imagePullPolicy": service.get("imagePullPolicy", "IfNotPresent"),
        "command": ["python", "-I", f"{FOLDER}/smoke.pyz"],
        "resources": {"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
        "securityContext": service.get("securityContext", {}),
        "volumeMounts": [*service.get("volumeMounts", []), {"name": NAME, "mountPath": FOLDER, "readOnly": True}],
    }


def _about(policy: Object, labels: Mapping[str, str]) -> bool:
    """Return whether `policy` is about the pods with `labels`, and not about each pod of the namespace."""
    selector = policy["spec"].get("podSelector", {})
    return bool(selector) and selects(selector, labels)


def _policy(policy: Object) -> Object:
    """Return `policy` for the pod of the trial: that of the service may be new, or another one, in this release."""
    spec = {**policy["spec"], "podSelector": {"matchLabels": {NAME_LABEL: NAME}}}
    labels = {**policy["metadata"].get("labels", {}), NAME_LABEL: NAME}
    return _object(policy["apiVersion"], "NetworkPolicy", labels, f"{NAME}-{name_of(policy)}", spec=spec)


def _wait(site: Site, new: Artifact, watch: Callable[[str], None], seconds: float) -> Json:
    """Wait until the smoke test has ended; return its pod. Raise `DeployFailed` where the service does not get ready.

    `seconds`: how long the test may take once the service is ready.
    """
    deadline, ready, patience, why = Deadline(site.env.timeout), False, Patience(), "the API server did not answer"
    while True:
        with contextlib.suppress(Unreachable):
            pod, found = site.rollout.examine(NAME, patience)
            states = {one["name"]: one for one in pod["status"].get("containerStatuses", ())} if pod else {}
            if pod and "terminated" in states.get(ASKS, {}).get("state", {}):
                return pod
            why = found[0].line if found else why_waiting(pod)
            if (found and found[0].certain) or "terminated" in states.get(SERVICE, {}).get("state", {}):
                raise DeployFailed(f"release {short(new.name)}: {why}")
            if not ready and states.get(SERVICE, {}).get("ready"):
                deadline, ready = Deadline(seconds), True
            watch(found[0].line if found else "asking it" if ready else "starting it")
        if deadline.left() < 0:
            raise DeployFailed(f"release {short(new.name)} did not get ready in time: {why}")
        time.sleep(TICK_SECONDS)


def remove_trial(kubectl: Kubectl) -> None:
    """Remove the Job with its pod, and what was applied for it."""
    which = f"--selector={NAME_LABEL}={NAME}"
    kubectl.ask("delete", KINDS, which, "--ignore-not-found", "--cascade=foreground", timeout=60)
