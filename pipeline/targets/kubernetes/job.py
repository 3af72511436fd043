"""One-shot Jobs from a release's own image: its migrations before a rollout, and the questions of `doctor`."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.secrets import SUPERUSER_PASSWORD
from pipeline.engines.kubectl import Kubectl, Object, Unreachable, as_list, name_of
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.system.text import shorten
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.migrating import BRIEF, Limits
from pipeline.targets.common.program import SECONDS, shell_script
from pipeline.targets.common.rights import PSQL

__all__ = [
    "Ended",
    "MigrateJob",
    "Removed",
    "add_secret",
    "command_of",
    "given_to",
    "job_from",
    "job_of",
    "lasting",
    "pointed_at",
    "policies_of",
    "program_of",
    "question_of",
    "superuser_psql",
    "why_waiting",
    "with_image",
]

log = logging.getLogger(__name__)

QUESTION = "doctor"
PROGRAM = "database-program"
GIVEN = "given"  # the standard input of a program, as a file
AS_OWNER = (  # the variables of libpq, from those of who migrates
    'export PGHOST="$POSTGRES_HOST" PGPORT="${POSTGRES_PORT:-5432}" PGDATABASE="$POSTGRES_DB"'
    ' PGUSER="${POSTGRES_OWNER:-$POSTGRES_USER}";'
    ' PGPASSWORD=$(cat /run/secrets/POSTGRES_${POSTGRES_OWNER:+OWNER_}PASSWORD) exec "$0" "$@"'
)

NAME_LABEL = "app.kubernetes.io/name"
STUCK_SECONDS = 60  # for a pod that does not even start
TICK_SECONDS = 0.5
LOG_TICKS = 6  # between two looks at the last line of a pod's log
UPGRADE = "upgrade"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
EVICTED = ("Evicted", "NodeShutdown", "Terminated", "Preempting")  # of a pod's own status, by its kubelet
BY_WHOM = "a drained node, an eviction, by hand?"


class Ended(DeployFailed):
    """The pod of a Job ended with an error; `output` is its log, `code` its exit code."""

    def __init__(self, what: str, output: str, code: int = 1) -> None:
        super().__init__(f"{what} failed: {telling_line(output.splitlines())}")
        self.output, self.code = output, code


class Removed(DeployFailed):
    """The pod of a Job was removed while it ran: by a drained node, an eviction, or by hand."""


@dataclass(frozen=True)
class MigrateJob:
    """The Job that a release's `manifest` describes. `tell` is called with its progress."""

    kubectl: Kubectl
    manifest: Object
    tell: Callable[[str], None]
    what: str = "the migrations' Job"
    limits: Limits = BRIEF

    def run(self, verb: str, *arguments: str) -> str:
        """Run a `verb` of the migrations; return what it printed. Raise `DeployFailed` with its last words."""
        job = job_of(self.manifest, f"{name_of(self.manifest)}-{verb}", verb, *arguments)
        if verb != UPGRADE:
            return self.do(job, verb)
        job = lasting(job, self.limits)
        try:
            return self.do(job, verb)
        except Removed as removed:
            # The command refuses where the database is no longer what was checked: so it is tried again only where
            # nothing was applied.
            if "--expect" not in arguments:
                raise
            log.warning(f"{removed.problems[0]}: once more, as far as nothing was applied")
        return self.do(job, verb)

    def do(self, job: Object, verb: str, given: str | None = None) -> str:
        """Run a `job` made from the manifest; return what it printed. Raise `DeployFailed` with its last words.

        `given` is the standard input of a job that `command_of` made.
        """
        name = name_of(job)
        self._remove(name, verb)  # left by a deploy that was killed
        made = self.kubectl.apply([job])
        try:
            if given is not None:
                # Not applied: who deploys may create a Secret, and read or change none but the service's.
                self.kubectl.ask("create", "--filename=-", given=as_list([given_to(made[0], given)]))
            return self._wait(name, verb)
        finally:
            self._remove(name, verb)

    def _wait(self, name: str, verb: str) -> str:
        started, ticks, said = time.monotonic(), 0, ""
        while True:
            pod = self._pod(name)
            phase = pod["status"].get("phase") if pod else None
            if pod and phase == "Succeeded":
                return self.kubectl.ask("logs", name_of(pod)).strip()
            if pod is None and self._ended(name) and verb == UPGRADE:
                return ""  # its pod was removed once it had done its work
            if pod and phase == "Failed":
                self._refuse_removed(pod)
                raise Ended(self.what, self.kubectl.ask("logs", name_of(pod)))
            seconds, limit = time.monotonic() - started, self.limits.seconds if phase == "Running" else STUCK_SECONDS
            if seconds > limit:
                raise DeployFailed(
                    f"{self.what} did not {'end' if phase == 'Running' else 'start'}: {why_waiting(pod)}"
                )
            if pod and phase == "Running" and verb == UPGRADE and ticks % LOG_TICKS == 0:
                said = self._last_line(pod)
            self.tell(f"migrations: {verb}, {phase or 'no pod yet'} for {seconds:.0f} s{said}")
            ticks += 1
            time.sleep(TICK_SECONDS)

    def _pod(self, name: str) -> Object | None:
        pods = self._ask("pods", f"--selector=batch.kubernetes.io/job-name={name}")
        return pods[0] if pods else None

    def _ended(self, name: str) -> bool:
        """Return whether a Job without a pod is done. Raise `Removed` where it failed because of that."""
        [job] = self._ask("job", name) or [{}]
        said = {one["type"]: one for one in job.get("status", {}).get("conditions", []) if one["status"] == "True"}
        failed = said.get("FailureTarget") or said.get("Failed")
        if failed and failed.get("reason") == "DeadlineExceeded":
            raise DeployFailed(
                f"{self.what} did not end: {failed.get('message', 'its activeDeadlineSeconds are over')}"
            )
        if failed:
            raise Removed(f"the pod of {self.what} was removed while it ran ({BY_WHOM})")
        return "Complete" in said or "SuccessCriteriaMet" in said

    def _refuse_removed(self, pod: Object) -> None:
        """Raise `Removed` where a pod failed because somebody else ended it."""
        status = pod["status"]
        targets = [one for one in status.get("conditions", []) if one["type"] == "DisruptionTarget"]
        by = [f"{one.get('reason', '')}: {one.get('message', '')}".strip(": ") for one in targets]
        by += (
            [f"{status['reason']}: {status.get('message', '')}".strip(": ")] if status.get("reason") in EVICTED else []
        )
        if pod["metadata"].get("deletionTimestamp"):
            self._ended(pod["metadata"]["labels"]["batch.kubernetes.io/job-name"])  # its time may be over
            by.append(BY_WHOM)
        if by:
            raise Removed(f"the pod of {self.what} was removed while it ran ({by[0][:200]})")

    def _last_line(self, pod: Object) -> str:
        """Return what a running pod said last."""
        try:
            said = self.kubectl.ask("logs", name_of(pod), "--tail=1").strip()
        except SlipwayError:  # it has just ended, or its node does not answer
            return ""
        going = "; its pod is being removed, and ends first" if pod["metadata"].get("deletionTimestamp") else ""
        return f"{going}: {said}" if said else going

    def _ask(self, *arguments: str) -> list[Object]:
        try:
            return self.kubectl.get(*arguments)
        except Unreachable as away:
            self.tell(away.problems[0])
            return []

    def _remove(self, name: str, verb: str) -> None:
        """Remove the Job; end its migrations in the database, where they still run."""
        # Their pod has a grace period as long as they may take, and SIGTERM lets them end.
        pod = self._pod(name) if verb == UPGRADE else None
        if pod and pod["status"].get("phase") == "Running":
            try:
                self.do(job_of(self.manifest, f"{name_of(self.manifest)}-stop", "stop"), "stop")
            except SlipwayError as error:  # a release of an older template has no such verb
                log.warning(f"the migrations could not be stopped: {error.problems[0]}")
        self.kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", "--wait", timeout=60)


def job_of(manifest: Object, name: str, *arguments: str) -> Object:
    """Return `manifest` under another `name`, with `arguments` for its first container."""
    job: Object = json.loads(json.dumps(manifest))
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["args"] = list(arguments)
    return job


def lasting(job: Object, limits: Limits) -> Object:
    """Return the `job` of a migration with the time that it may take: to run, and to end where its node is drained."""
    job = json.loads(json.dumps(job))
    spec = job["spec"]["template"]["spec"]
    # The pipeline gives up first, and says why.
    job["spec"]["activeDeadlineSeconds"] = int(limits.seconds) + STUCK_SECONDS * 2
    spec["terminationGracePeriodSeconds"] = int(limits.seconds)
    job["spec"]["template"]["metadata"].setdefault("annotations", {})[SAFE_TO_EVICT] = "false"
    own = {**limits.environment, "MIGRATION_ON_SIGTERM": "finish"}
    container = spec["containers"][0]
    container["env"] = [*container.get("env", []), *({"name": name, "value": own[name]} for name in own)]
    return job


def job_from(cron: Object, name: str) -> Object:
    """Return the Job `name` of the template of a CronJob, as that would make it."""
    template: Object = json.loads(json.dumps(cron["spec"]["jobTemplate"]))
    labels = {**cron["metadata"].get("labels", {}), **template.get("metadata", {}).get("labels", {})}
    metadata = {**template.get("metadata", {}), "name": name, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}


def with_image(manifest: Object, image: str) -> Object:
    """Return `manifest` with another `image` for its first container."""
    job: Object = json.loads(json.dumps(manifest))
    job["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return job


def program_of(manifest: Object, image: str, command: Sequence[str]) -> Object:
    """Return the migrations' `manifest` as a Job that runs a program of PostgreSQL's from `image`."""
    job = with_image(job_of(manifest, PROGRAM, *command), image)
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-ec", AS_OWNER]
    return job


def command_of(manifest: Object, name: str, module: str, *arguments: str) -> Object:
    """Return the migrations' `manifest` as the Job `name`, which runs a `module` of python with `arguments`.

    A Job has no standard input: it waits for the Secret that `given_to` makes, which the API shows to nobody else.
    """
    return _given(job_of(manifest, name), shell_script(module, *arguments))


def pointed_at(container: Object, host: str, database: str | None = None) -> None:
    """Lead the `container` of a pod to another server of the service's `database`, or to another one there."""
    place = {"POSTGRES_HOST": host, **({"POSTGRES_DB": database} if database else {})}
    own = [one for one in container.get("env", ()) if one["name"] not in place]
    container["env"] = [*own, *({"name": name, "value": value} for name, value in place.items())]


def superuser_psql(manifest: Object, image: str, name: str, *options: str) -> Object:
    """Return the migrations' `manifest` as the Job `name`: psql from `image`, as the superuser of the database.

    Its SQL comes as the standard input of a program does.
    """
    words = " ".join((*PSQL, *options))
    connect = 'export PGHOST="$POSTGRES_HOST" PGPORT="${POSTGRES_PORT:-5432}" PGDATABASE="$POSTGRES_DB" PGUSER=postgres'
    script = f"{connect}; PGPASSWORD=$(cat /run/secrets/{SUPERUSER_PASSWORD}) exec {words}"
    job = _given(with_image(job_of(manifest, name), image), script)
    add_secret(job, SUPERUSER_PASSWORD)
    return job


def add_secret(job: Object, key: str, *, optional: bool = False) -> None:
    """Mount one more `key` of the service's Secret into the pod of `job`; an `optional` one may be missing there."""
    volume = next(one for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == "secrets")
    item = {"key": key, "path": key}
    if "projected" in volume:
        sources = volume["projected"]["sources"]
        there: Object = {"optional": True} if optional else {}
        sources.append({"secret": {"name": sources[0]["secret"]["name"], **there, "items": [item]}})
    else:  # of an earlier release
        volume["secret"]["items"].append(item)


def _given(job: Object, script: str) -> Object:
    """Return the `job` with a shell's `script` that reads what `given_to` makes as its standard input."""
    # Even if whoever waits for it was killed, what it was given is gone within minutes.
    job["spec"] |= {"activeDeadlineSeconds": SECONDS + STUCK_SECONDS * 2, "ttlSecondsAfterFinished": STUCK_SECONDS}
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    container["command"] = ["sh", "-ec", f"{{ {script}; }} < /run/{GIVEN}/{GIVEN}"]
    container["volumeMounts"].append({"name": GIVEN, "mountPath": f"/run/{GIVEN}", "readOnly": True})
    spec["volumes"].append({"name": GIVEN, "secret": {"secretName": name_of(job), "defaultMode": 0o440}})
    return job


def given_to(job: Object, text: str) -> Object:
    """Return the Secret with the standard input of a `job` in the cluster, which is removed when the job is."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name_of(job), "uid": job["metadata"]["uid"]}
    labels = job["metadata"].get("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name_of(job), "labels": labels, "ownerReferences": [owner]},
        "type": "Opaque",
        "immutable": True,
        "data": {GIVEN: base64.b64encode(text.encode()).decode()},
    }


def question_of(manifest: Object, command: Sequence[str], *, redis: bool) -> Object:
    """Return the migrations' `manifest` as a Job that runs python with `command`.

    With `redis`, it also gets the password of Redis.
    """
    # To the network policies, the overlay's own among them, it is a migration: that opens the way to the database.
    job = job_of(manifest, QUESTION, "")
    job["metadata"]["labels"][NAME_LABEL] = QUESTION
    template = job["spec"]["template"]
    template["metadata"]["labels"][NAME_LABEL] = QUESTION
    container = template["spec"]["containers"][0]
    container["command"], container["args"] = ["python"], list(command)
    if redis:
        add_secret(job, "REDIS_PASSWORD")
    return job


def policies_of(job: Object) -> list[Object]:
    """Return the policies that open the way from the question `job` to Redis at both ends, for as long as it exists."""
    asks = {"podSelector": {"matchLabels": {NAME_LABEL: QUESTION}}}
    redis = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "redis"}}}
    ports = [{"protocol": "TCP", "port": 6379}]
    labels = {key: value for key, value in job["metadata"]["labels"].items() if key != "app.kubernetes.io/component"}
    specs = {
        f"{QUESTION}-to-redis": {**asks, "policyTypes": ["Egress"], "egress": [{"to": [redis], "ports": ports}]},
        f"{QUESTION}-into-redis": {**redis, "policyTypes": ["Ingress"], "ingress": [{"from": [asks], "ports": ports}]},
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        }
        for name, spec in specs.items()
    ]


def why_waiting(pod: Mapping[str, Any] | None) -> str:
    """Return what a pod that does not run waits for."""
    if pod is None:
        return "no pod was created for it (quota, Pod Security?): see `kubectl get events`"
    for one in pod["status"].get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting")
        if waiting:
            return shorten(f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": "))
    conditions = [one.get("message", "") for one in pod["status"].get("conditions", []) if one["status"] != "True"]
    return shorten(next(filter(None, conditions), "it does not say why"))
