"""The data stores of an overlay: whether they run, and what they report of themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, Refused, describe, name_of
from pipeline.errors import DeployFailed
from pipeline.system.waiting import attempts
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.kubernetes.job import MigrateJob, policies_of, question_of, why_waiting
from pipeline.targets.kubernetes.moves import Stores
from pipeline.targets.kubernetes.release import Release
from pipeline.targets.kubernetes.rollout.observation import quantity
from pipeline.targets.kubernetes.rollout.watch import is_ready
from pipeline.targets.kubernetes.store import Store

__all__ = ["ask_stores", "config_of", "store_problems", "trial_of", "wait_for_store"]

REVISION = "controller-revision-hash"
STORE_SECONDS = 180
CRASHES = 3  # as of a pod of the service
LOG_SECONDS = 1.0  # until the last lines of a pod that ended can be read


def store_problems(kubectl: Kubectl, release: Release, tell: Callable[[str], None]) -> list[str]:
    """List which StatefulSets of `release` would not run, one line each; try those that it would change.

    A copy of the changed pod, with empty volumes, has to get ready. Nothing that runs is touched.
    """
    problems = []
    for store in release.objects(["StatefulSet"]):
        live = kubectl.get("statefulset", name_of(store))
        if not live:  # nothing runs that could be lost
            continue
        try:
            [planned] = kubectl.apply([store], dry_run=True)
            if _essence(planned) == _essence(live[0]):
                continue
            # Their names end with a hash of their content: nothing but the copy reads them yet.
            configs = config_of(store, release.objects(["ConfigMap"]))
            if configs:
                kubectl.apply(configs)
            why = _try(kubectl, trial_of(store), tell)
        except Refused as error:  # a field that cannot be changed, a policy of the cluster
            why = error.problems[0]
        if why:
            problems.append(f"{describe(store)} would not run as the overlay defines it now: {why}")
    return problems


def config_of(store: Object, configs: Iterable[Object]) -> list[Object]:
    """Return those of the `configs` that a pod of `store` mounts."""
    volumes = store["spec"]["template"]["spec"].get("volumes") or ()
    names = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    return [one for one in configs if name_of(one) in names]


def trial_of(store: Object) -> Object:
    """Return the Job that runs one pod of a StatefulSet beside it: with empty volumes, and reached by nobody."""
    template: Object = json.loads(json.dumps(store["spec"]["template"]))
    spec, name = template["spec"], f"try-{name_of(store)}"
    labels = {
        **store["metadata"].get("labels", {}),
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": "try",
    }
    template["metadata"] = {"labels": {**template["metadata"].get("labels", {}), **labels}}
    claims = store["spec"].get("volumeClaimTemplates") or ()
    spec["volumes"] = [
        *({"name": name_of(claim), "emptyDir": {}} for claim in claims),
        *(
            {"name": one["name"], "emptyDir": {}} if "persistentVolumeClaim" in one else one
            for one in spec.get("volumes") or ()
        ),
    ]
    spec["restartPolicy"] = "Never"
    job = {"backoffLimit": 0, "activeDeadlineSeconds": STORE_SECONDS, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": job}


def wait_for_store(
    kubectl: Kubectl, one: Object, findings: Callable[[], list[str]], tell: Callable[[str], None]
) -> None:
    """Wait until the StatefulSet `one` is as it was applied, and ready.

    Replace a broken pod of an earlier revision, which Kubernetes itself would wait for. Raise `DeployFailed` with the
    `findings` where the new pod crashes `CRASHES` times, or after `STORE_SECONDS`.
    """
    how = f"did not get ready within {STORE_SECONDS} s"
    for _ in attempts(STORE_SECONDS, every=1, watch=lambda: tell(f"waiting for {describe(one)}")):
        [now] = kubectl.get("statefulset", name_of(one)) or [one]
        status, wanted = now.get("status", {}), now["spec"].get("replicas", 1)
        fresh = status.get("observedGeneration", 0) >= now["metadata"].get("generation", 1)
        if fresh and min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0)) >= wanted:
            return
        if fresh and _crashes(kubectl, now):
            how = f"crashed {CRASHES} times"
            break
    why = "; ".join(findings()) or f"`kubectl describe statefulset {name_of(one)}`"
    raise DeployFailed(f"{describe(one)} {how}: {why}")


def _crashes(kubectl: Kubectl, store: Object) -> bool:
    """Delete broken pods of an earlier revision of `store`; return whether one of the current revision crashes."""
    crashes = False
    for number in range(store["spec"].get("replicas", 1)):
        for pod in kubectl.get("pod", f"{name_of(store)}-{number}"):
            if is_ready(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            if pod["metadata"]["labels"].get(REVISION) == store["status"].get("updateRevision"):
                crashes |= any(each["restartCount"] >= CRASHES for each in pod["status"].get("containerStatuses") or ())
                continue
            try:
                kubectl.do("delete", "pod", name_of(pod), "--wait=false")
            except Refused as error:
                command = f"kubectl --namespace {kubectl.namespace} delete pod {name_of(pod)}"
                raise DeployFailed(
                    f"pod {name_of(pod)} does not run, and Kubernetes replaces it only once it is deleted, which we may"
                    f" not: an administrator: `{command}`; for the next time `kubectl apply -k` k8s/bootstrap"
                ) from error
    return crashes


def _try(kubectl: Kubectl, job: Object, tell: Callable[[str], None]) -> str | None:
    """Run the `job` of a trial until its pod is ready; return why it does not get so."""
    name = name_of(job)
    kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", timeout=60)  # of a killed deploy
    kubectl.apply([job])
    pods: list[Object] = []
    try:
        for _ in attempts(STORE_SECONDS, every=0.5, watch=lambda: tell(f"trying {name.removeprefix('try-')}")):
            pods = kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={name}")
            if any(is_ready(pod) for pod in pods):
                return None
            ended = [pod for pod in pods if pod["status"].get("phase") in ("Failed", "Succeeded")]
            if ended:
                time.sleep(LOG_SECONDS)
                return telling_line(kubectl.ask("logs", name_of(ended[0])).splitlines())
        return f"it is not ready after {STORE_SECONDS} s: {why_waiting(pods[0] if pods else None)}"
    finally:
        kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", timeout=60)


def _essence(store: Object) -> Object:
    """Return what decides how the pods of a StatefulSet run."""
    spec: Object = store["spec"]["template"]["spec"]
    return spec


def ask_stores(kubectl: Kubectl, kept: Release) -> dict[str, Any]:
    """Return what `pipeline.targets.common.stores` reads from the stores of a running release, by a Job beside it."""
    # A Redis outside the overlay has monitoring of its own.
    redis = any(name_of(one) == "redis" for one in kept.objects(["StatefulSet"]))
    command = probe_command("database", *(["redis"] if redis else []))
    question = question_of(kept.objects(["Job"])[0], command, redis=redis)
    policies = policies_of(question) if redis else []
    job = MigrateJob(kubectl, question, lambda _: None, "the Job that asks the stores")
    try:
        if policies:
            kubectl.apply(policies)
        stores = read_stores(job.do(question, "ask"))
    finally:
        names = [f"networkpolicy/{name_of(one)}" for one in policies]
        if names:
            kubectl.ask("delete", "--ignore-not-found", *names)
    there = Stores.read(kubectl)
    claim = Store.of(there.serving).claim if there.serving else None
    for one in kubectl.get("persistentvolumeclaim", claim) if claim else ():
        stores["database"]["capacity"] = quantity(one.get("status", {}).get("capacity", {}).get("storage", "0"))
    return stores
