"""The trial on Kubernetes: a pod of the service that no Service selects, with the smoke test as a second container.

It is the pod of the Deployment under another name, so that it has the settings, secrets and network of the service, and
counts in no ReplicaSet, autoscaler or disruption budget.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.managed import NO_REDIS
from pipeline.engines.kubectl import Kubectl, Object, Unreachable, as_list, describe, name_of
from pipeline.errors import DeployFailed, NotReady, SlipwayError
from pipeline.proof.packed import pack_smoke
from pipeline.proof.smoke import Smoked, smoke_limit, smoked_of
from pipeline.releases.model import Artifact, short
from pipeline.system.text import shorten
from pipeline.system.waiting import Deadline
from pipeline.targets.common.container import BACKEND_PORT
from pipeline.targets.common.diagnosis import LOG_LINES, telling_line
from pipeline.targets.kubernetes.changes import key_of
from pipeline.targets.kubernetes.job import GIVEN, given_to, pointed_at, why_waiting
from pipeline.targets.kubernetes.release import SERVICE, Release
from pipeline.targets.kubernetes.rollout.diagnosis import Patience
from pipeline.targets.kubernetes.rollout.observation import named
from pipeline.targets.kubernetes.site import Site

__all__ = ["end_trials", "selects", "trial_objects", "try_pod", "use_database", "use_server"]

logger = logging.getLogger(__name__)

SELECTING = ("Service", "Deployment", "StatefulSet", "PodDisruptionBudget")

NAME = "try-backend"  # its label; the name of each has a random end, so that one whose node is lost is in nobody's way
ASKS = "smoke"  # the container that asks
FOLDER = "/trial"
NAME_LABEL = "app.kubernetes.io/name"
TOKEN, TOKEN_KEY = "/run/trial", "SERVICE_TOKEN"
DRAIN = "DRAIN_SECONDS"
TICK_SECONDS = 0.5
SPARE_SECONDS = 60  # for its image, and its end; then Kubernetes ends it, even if the deploy was killed
KEPT_SECONDS = 30  # until Kubernetes removes an ended one that no deploy has removed
REMOVE_SECONDS = 60  # a node that does not answer may keep its pod for longer


def try_pod(
    site: Site,
    new: Artifact,
    watch: Callable[[str], None],
    *,
    journal: Path,
    log: Path,
    tries: int,
    database: str | None = None,
    server: str | None = None,
) -> Smoked:
    """See `pipeline.targets.common.roles.Fleet.trial`. `server`: another one, which has the same database."""
    release, kubectl, seconds = site.kept.find(new.name), site.kubectl, smoke_limit(new.requests, tries)
    name = f"{NAME}-{secrets.token_hex(3)}"
    job, archived, *network = trial_objects(release, name, site.secret, site.env.timeout + seconds + SPARE_SECONDS)
    beside = site.managed.beside(database) if database else {}
    if database:
        use_database(job, database, managed=bool(beside))
    if server:
        use_server(job, server)
    port = _port(job["spec"]["template"]["spec"])
    archive = pack_smoke(
        new.requests, f"http://127.0.0.1:{port}", [f"{TOKEN}/{TOKEN_KEY}"], wait=site.env.timeout, tries=tries
    )
    archived["binaryData"] = {"smoke.pyz": base64.b64encode(archive).decode()}
    # In `check`, settings that are not there yet; nobody reads them, as their names end with a hash of their content.
    settings = [one for one in release.objects(["ConfigMap"]) if key_of(one) in site.absent]
    pod = ""
    try:
        # First without its pod: what goes with it is removed by Kubernetes when the Job is.
        [made] = kubectl.apply([{**job, "spec": {**job["spec"], "suspend": True}}])
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made["metadata"]["uid"]}
        for one in (archived, *network):
            one["metadata"]["ownerReferences"] = [owner]
        for url in beside.values():  # with a password in it; not applied: see `MigrateJob.do`
            kubectl.ask("create", "--filename=-", given=as_list([given_to(made, url)]))
        kubectl.apply([*settings, archived, *network, {**job, "spec": {**job["spec"], "suspend": False}}])
        pod = _wait(site, new, name, watch, seconds)
        said = _keep_log(kubectl, pod, ASKS, journal)
        smoked = smoked_of(journal)
        if smoked is None:
            why = telling_line(said.splitlines()) if said.strip() else _last_words(kubectl, pod)
            raise DeployFailed(f"the trial of release {short(new.name)} broke off: {why}")
        return smoked
    finally:
        with contextlib.suppress(SlipwayError):
            pod = pod or next(iter(_pods(kubectl, name)), "")
            if pod:
                _keep_log(kubectl, pod, SERVICE, log)
                if not journal.exists():
                    _keep_log(kubectl, pod, ASKS, journal)
        try:
            kubectl.ask("delete", f"job/{name}", "--ignore-not-found", "--cascade=foreground", timeout=REMOVE_SECONDS)
        except SlipwayError as error:
            logger.warning(f"the trial {name} could not be removed, and ends by itself: {error.problems[0]}")


def end_trials(kubectl: Kubectl) -> None:
    """End what a killed deploy tried, without waiting: each removes what it wrote, and has a name of its own."""
    try:
        kubectl.ask("delete", "jobs", f"--selector={NAME_LABEL}={NAME}", "--ignore-not-found", "--wait=false")
    except SlipwayError as error:
        logger.warning(f"what a killed deploy tried could not be removed, and ends by itself: {error.problems[0]}")


def _keep_log(kubectl: Kubectl, pod: str, container: str, path: Path) -> str:
    """Write what a `container` of the `pod` printed to the file `path`, and return it."""
    said = kubectl.ask("logs", pod, f"--container={container}", f"--tail={LOG_LINES}")
    path.write_text(said, encoding="utf-8")
    return said


def _last_words(kubectl: Kubectl, pod: str) -> str:
    """Return how the container that asks has ended, where it printed nothing: no Python, no memory."""
    statuses = [status for one in kubectl.get("pods", pod) for status in one["status"].get("containerStatuses", ())]
    ends = [status["state"].get("terminated", {}) for status in statuses if status["name"] == ASKS]
    return shorten("; ".join(f"{end.get('reason')}: {end.get('message', '')}".strip(": ") for end in ends))


def _pods(kubectl: Kubectl, job: str) -> list[str]:
    return [name_of(pod) for pod in kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={job}")]


def trial_objects(release: Release, name: str, secret: str, seconds: float) -> list[Object]:
    """Return what to apply: the Job `name`, the ConfigMap for its archive, and the network of the service for its pod.

    `secret` is the name of the service's Secret; `seconds`: for how long at most. Raise `DeployFailed` where anything
    of the release would select the pod.
    """
    [deployment] = [one for one in release.objects(["Deployment"]) if name_of(one) == SERVICE]
    template: Object = json.loads(json.dumps(deployment["spec"]["template"]))
    was = template["metadata"].get("labels", {})
    labels = {**was, NAME_LABEL: NAME}
    for one in release.objects(SELECTING):
        selector = _selector(one)
        if selector and selects(selector, labels):
            keys = ", ".join(selector.get("matchLabels", {})) or "labels"
            raise DeployFailed(
                f"{describe(one)} selects by {keys} alone, and would take a pod that is only tried for one that serves:"
                f" add `{NAME_LABEL}` to its selector"
            )
    template["metadata"]["labels"] = labels
    spec = template["spec"]
    service = next(one for one in spec["containers"] if one["name"] == SERVICE)
    own = [one for one in service.get("env", ()) if one["name"] != DRAIN]
    service["env"] = [*own, {"name": DRAIN, "value": "0"}]  # it has nobody to wait for
    spec["containers"].append(_asks(service))
    token = {"secretName": secret, "items": [{"key": TOKEN_KEY, "path": TOKEN_KEY}], "optional": True}
    spec["volumes"] = [
        *spec.get("volumes", []),
        {"name": NAME, "configMap": {"name": name}},
        {"name": f"{NAME}-token", "secret": {**token, "defaultMode": 0o440}},
    ]
    spec["restartPolicy"] = "Never"
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": int(seconds),
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": template,
    }
    network = [_policy(one, name) for one in release.objects(["NetworkPolicy"]) if _about(one, was)]
    return [_object("batch/v1", "Job", labels, name, spec=job), _object("v1", "ConfigMap", labels, name), *network]


def use_database(job: Object, database: str, *, managed: bool) -> None:
    """Lead the service in the `job` of a trial to another `database` of the same server, and to no Redis.

    `managed`: others manage that server, and the Secret of the job has its whole URL.
    """
    service = next(one for one in job["spec"]["template"]["spec"]["containers"] if one["name"] == SERVICE)
    place: Object = {"name": "POSTGRES_DB", "value": database}
    if managed:
        place = {"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": name_of(job), "key": GIVEN}}}
    own = [place, {"name": "REDIS_URL", "value": NO_REDIS}]
    names = {one["name"] for one in own}
    service["env"] = [*(one for one in service["env"] if one["name"] not in names), *own]


def use_server(job: Object, host: str) -> None:
    """Lead the service in the `job` of a trial to the same database of another server, and to no Redis."""
    service = next(one for one in job["spec"]["template"]["spec"]["containers"] if one["name"] == SERVICE)
    pointed_at(service, host)
    own = [one for one in service["env"] if one["name"] != "REDIS_URL"]
    service["env"] = [*own, {"name": "REDIS_URL", "value": NO_REDIS}]


def _selector(one: Object) -> Mapping[str, Any]:
    """Return the selector of `one` as a Deployment writes it; that of a Service has labels alone."""
    selector: dict[str, Any] = one["spec"].get("selector") or {}
    return {"matchLabels": selector} if one["kind"] == "Service" and selector else selector


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label `selector` of Kubernetes matches `labels`."""
    exact = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return exact and all(_holds(one, labels) for one in selector.get("matchExpressions", ()))


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    within = labels.get(rule["key"]) in rule["values"] if "values" in rule else rule["key"] in labels
    return within != (rule["operator"] in ("NotIn", "DoesNotExist"))


def _port(spec: Object) -> int:
    """Return the port that the service of a pod `spec` listens on."""
    ports = next(one for one in spec["containers"] if one["name"] == SERVICE).get("ports", ())
    return next((int(one["containerPort"]) for one in ports if one.get("name") == "http"), BACKEND_PORT)


def _object(version: str, kind: str, labels: Mapping[str, str], name: str, **content: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, **content}


def _asks(service: Object) -> Object:
    """Return the container that asks the `service` beside it: on its image, with its rights, and the token alone."""
    return {
        "name": ASKS,
        "image": service["image"],
        "imagePullPolicy": service.get("imagePullPolicy", "IfNotPresent"),
        "command": ["python", "-I", f"{FOLDER}/smoke.pyz"],
        "resources": {"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": service.get("securityContext", {}),
        "volumeMounts": [
            {"name": NAME, "mountPath": FOLDER, "readOnly": True},
            {"name": f"{NAME}-token", "mountPath": TOKEN, "readOnly": True},
        ],
    }


def _about(policy: Object, labels: Mapping[str, str]) -> bool:
    """Return whether `policy` is about the pods with `labels`, and not about each pod of the namespace."""
    selector = policy["spec"].get("podSelector", {})
    return bool(selector) and selects(selector, labels)


def _policy(policy: Object, name: str) -> Object:
    """Return `policy` for the pod of the trial: that of the service may be new, or another one, in this release."""
    spec = {**policy["spec"], "podSelector": {"matchLabels": {NAME_LABEL: NAME}}}
    labels = {**policy["metadata"].get("labels", {}), NAME_LABEL: NAME}
    return _object(policy["apiVersion"], "NetworkPolicy", labels, f"{name}-{name_of(policy)}", spec=spec)


def _wait(site: Site, new: Artifact, job: str, watch: Callable[[str], None], seconds: float) -> str:
    """Wait until the smoke test has ended; return its pod's name.

    Raise `NotReady` where the service does not get ready. `seconds`: how long the test may take once it is.
    """
    deadline, ready, patience, why = Deadline(site.env.timeout), False, Patience(), "the API server did not answer"
    while True:
        with contextlib.suppress(Unreachable):
            ended, pod, found = site.rollout.examine(job, patience)
            states = {one["name"]: one for one in pod["status"].get("containerStatuses", ())} if pod else {}
            if pod and "terminated" in states.get(ASKS, {}).get("state", {}):
                return named(pod)
            why = found[0].line if found else ended or why_waiting(pod)
            over = ended or (found and found[0].certain) or "terminated" in states.get(SERVICE, {}).get("state", {})
            if over:
                raise _broken(new, ready=ready, why=why)
            if not ready and states.get(SERVICE, {}).get("ready"):
                deadline, ready = Deadline(seconds), True
            watch(found[0].line if found else "asking it" if ready else "starting it")
        if site.lease.lost:
            raise DeployFailed(site.lease.lost)
        if deadline.left() < 0:
            raise _broken(new, ready=ready, why=f"after {site.env.timeout if not ready else seconds:g} s: {why}")
        time.sleep(TICK_SECONDS)


def _broken(new: Artifact, *, ready: bool, why: str) -> DeployFailed:
    if ready:
        return DeployFailed(f"the trial of release {short(new.name)} did not end as it should: {why}")
    return NotReady(short(new.name), f"did not get ready in its trial: {why}")
