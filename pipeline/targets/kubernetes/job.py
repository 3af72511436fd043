"""One-shot Jobs from a release's own image: its migrations before a rollout, and the questions of `doctor`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.engines.kubectl import Kubectl, Object, Unreachable, name_of
from pipeline.errors import DeployFailed
from pipeline.system.text import shorten
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.synthetic import shell_script

__all__ = [
    "MigrateJob",
    "job_of",
    "policies_of",
    "program_of",
    "question_of",
    "synthetic_of",
    "why_waiting",
    "with_image",
]

QUESTION = "doctor"
PROGRAM = "database-program"
SYNTHETIC = "synthetic"
AS_SERVICE = (  # the variables of libpq, from those of the service
    'export PGHOST="$POSTGRES_HOST" PGPORT="${POSTGRES_PORT:-5432}" PGUSER="$POSTGRES_USER" PGDATABASE="$POSTGRES_DB";'
    ' PGPASSWORD=$(cat /run/secrets/POSTGRES_PASSWORD) exec "$0" "$@"'
)

NAME_LABEL = "app.kubernetes.io/name"
SECONDS = 600  # migrations have timeouts of their own: lock and statement
STUCK_SECONDS = 60  # for a pod that does not even start
TICK_SECONDS = 0.5


@dataclass(frozen=True)
class MigrateJob:
    """The Job that a release's `manifest` describes. `tell` is called with its progress."""

    kubectl: Kubectl
    manifest: Object
    tell: Callable[[str], None]
    what: str = "the migrations' Job"

    def run(self, verb: str, *arguments: str) -> str:
        """Run a `verb` of the migrations; return what it printed. Raise `DeployFailed` with its last words."""
        return self.do(job_of(self.manifest, f"{name_of(self.manifest)}-{verb}", verb, *arguments), verb)

    def do(self, job: Object, verb: str) -> str:
        """Run a `job` made from the manifest; return what it printed. Raise `DeployFailed` with its last words."""
        name = name_of(job)
        self._delete(name)  # left by a deploy that was killed
        self.kubectl.apply([job])
        try:
            return self._wait(name, verb)
        finally:
            self._delete(name)

    def _wait(self, name: str, verb: str) -> str:
        started = time.monotonic()
        while True:
            pods = self._ask(f"--selector=batch.kubernetes.io/job-name={name}")
            pod = pods[0] if pods else None
            phase = pod["status"].get("phase") if pod else None
            if pod and phase in ("Succeeded", "Failed"):
                log = self.kubectl.ask("logs", name_of(pod))
                if phase == "Succeeded":
                    return log.strip()
                raise DeployFailed(f"{self.what} failed: {telling_line(log.splitlines())}")
            seconds = time.monotonic() - started
            if seconds > (SECONDS if phase == "Running" else STUCK_SECONDS):
                raise DeployFailed(
                    f"{self.what} did not {'end' if phase == 'Running' else 'start'}: {why_waiting(pod)}"
                )
            self.tell(f"migrations: {verb}, {phase or 'no pod yet'} for {seconds:.0f} s")
            time.sleep(TICK_SECONDS)

    def _ask(self, selector: str) -> list[Object]:
        try:
            return self.kubectl.get("pods", selector)
        except Unreachable as away:
            self.tell(away.problems[0])
            return []

    def _delete(self, name: str) -> None:
        self.kubectl.ask("delete", "job", name, "--ignore-not-found", "--cascade=foreground", "--wait", timeout=60)


def job_of(manifest: Object, name: str, *arguments: str) -> Object:
    """Return `manifest` under another `name`, with `arguments` for its first container."""
    job: Object = json.loads(json.dumps(manifest))
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["args"] = list(arguments)
    return job


def with_image(manifest: Object, image: str) -> Object:
    """Return `manifest` with another `image` for its first container."""
    job: Object = json.loads(json.dumps(manifest))
    job["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return job


def program_of(manifest: Object, image: str, command: Sequence[str]) -> Object:
    """Return the migrations' `manifest` as a Job that runs a program of PostgreSQL's from `image`."""
    job = with_image(job_of(manifest, PROGRAM, *command), image)
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-ec", AS_SERVICE]
    return job


def synthetic_of(manifest: Object, arguments: Sequence[str], ids: Sequence[str]) -> Object:
    """Return the migrations' `manifest` as a Job that removes what the proof wrote: `ids`, one a line."""
    # A Job has no standard input.
    job = job_of(manifest, SYNTHETIC, SYNTHETIC, *ids)  # the first is the shell's $0
    script = f"printf '%s\\n' \"$@\" | {{ {shell_script(*arguments)}; }}"
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-ec", script]
    return job


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
        secret = next(one["secret"] for one in template["spec"]["volumes"] if one["name"] == "secrets")
        secret["items"].append({"key": "REDIS_PASSWORD", "path": "REDIS_PASSWORD"})
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


def why_waiting(pod: Object | None) -> str:
    """Return what a pod that does not run waits for."""
    if pod is None:
        return "no pod was created for it (quota, Pod Security?): see `kubectl get events`"
    for one in pod["status"].get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting")
        if waiting:
            return shorten(f"{waiting.get('reason')}: {waiting.get('message', '')}".strip(": "))
    conditions = [one.get("message", "") for one in pod["status"].get("conditions", []) if one["status"] != "True"]
    return shorten(next(filter(None, conditions), "it does not say why"))
