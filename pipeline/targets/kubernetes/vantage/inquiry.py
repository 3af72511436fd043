"""A Prometheus that only the cluster reaches: a Job beside the service asks it, and its log has the answers.

The Job has two minutes to live, and gets more while somebody reads its log. So one whose watch was killed is gone soon,
and Kubernetes removes with it what it needed.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.errors import SlipwayError
from pipeline.system.text import shorten
from pipeline.system.waiting import attempts
from pipeline.targets.kubernetes.job import why_waiting
from pipeline.targets.kubernetes.vantage import asker
from pipeline.targets.kubernetes.vantage.pod import COMPONENT_LABEL, DNS, Json, labels_of, pod_of

__all__ = ["LIFE_SECONDS", "NAME", "RENEW_SECONDS", "Inquiry", "objects"]

log = logging.getLogger(__name__)

NAME = "watch"  # its label; the name of each has a random end, so that two are in nobody's way
EVERY, WARM_UP = 5.0, 15.0  # seconds: see `asker`
RENEW_SECONDS, LIFE_SECONDS = 30.0, 120  # how often the Job's end is put off, and how far
KEPT_SECONDS = 30  # until Kubernetes removes one that has ended
RESTARTS = 6  # a node may be drained in the course of a watch
START_SECONDS = 60.0
TICK_SECONDS = 0.5
FRESH_SECONDS = 30  # an answer that is older is none
SAME_SECONDS = 1.0  # what is asked one after the other is answered by one line
REMOVE_SECONDS = 60
SCRIPT = ("/watch/asker.py", "/watch/orders.json")


@dataclass
class Inquiry:
    """Asks the `questions` of `address` from a pod on `image` while the context is open.

    The context yields what returns the newest answer to one of them: see `pipeline.targets.common.roles.Fleet.asking`.
    """

    kubectl: Kubectl
    image: str
    address: str
    questions: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    _name: str = ""  # of the Job, while there is one
    _problem: str = ""  # why there is none
    _began: float = 0.0
    _due: float = 0.0  # when the Job is to be seen to
    _read: float | None = None
    _answers: Mapping[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Callable[[str], tuple[int, bytes]]:
        return self.answer

    def __exit__(self, *_: object) -> None:
        self._end()

    def answer(self, question: str) -> tuple[int, bytes]:
        """Return status and body of the newest answer to `question`. Raise `SlipwayError` where there is none."""
        if self._read is None or self.clock() - self._read > SAME_SECONDS:
            try:
                self._see_to_the_job()
                self._answers = self._newest()
            except SlipwayError as error:
                raise SlipwayError(f"cannot be asked: {error.problems[0]}") from None
            self._read = self.clock()
        said = self._answers[question]
        if "problem" in said:
            raise SlipwayError(shorten(" ".join(said["problem"].split())))
        return int(said["status"]), said["body"].encode()

    def _see_to_the_job(self) -> None:
        """Start it, or put off its end, if that is due."""
        now = self.clock()
        if now >= self._due:
            self._due = now + RENEW_SECONDS
            if not self._renewed(now):
                self._begin(now)
        elif not self._name:
            raise SlipwayError(self._problem)

    def _renewed(self, now: float) -> bool:
        """Put off the end of the Job; return whether there is one. It may be gone: this machine was asleep."""
        if not self._name or not self.kubectl.get("job", self._name):
            return False
        later = {"spec": {"activeDeadlineSeconds": int(now - self._began) + LIFE_SECONDS}}
        self.kubectl.ask("patch", f"job/{self._name}", "--type=merge", f"--patch={json.dumps(later)}")
        return True

    def _begin(self, now: float) -> None:
        self._name, self._began = f"{NAME}-{secrets.token_hex(3)}", now
        job, *needed = objects(self._name, self.image, self.address, self.questions)
        try:
            # First without its pod: what goes with it is removed by Kubernetes when the Job is.
            [made] = self.kubectl.apply([{**job, "spec": {**job["spec"], "suspend": True}}])
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self._name, "uid": made["metadata"]["uid"]}
            for one in needed:
                one["metadata"]["ownerReferences"] = [owner]
            self.kubectl.apply([*needed, {**job, "spec": {**job["spec"], "suspend": False}}])
        except SlipwayError as error:
            self._problem = error.problems[0]
            self._end()
            raise
        for _ in attempts(START_SECONDS, every=TICK_SECONDS):
            try:
                self._newest()
            except SlipwayError:
                continue
            return

    def _newest(self) -> Mapping[str, Any]:
        """Return the answers that the Job has printed last."""
        pods = self.kubectl.get("pods", f"--selector=batch.kubernetes.io/job-name={self._name}")
        pods.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp")))
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        if not running:
            raise SlipwayError(f"Job {self._name} does not run: {_why(pods)}")
        said = self.kubectl.ask("logs", name_of(running[-1]), "--tail=1", f"--since={FRESH_SECONDS}s")
        try:
            answers = json.loads(said)["answers"]
        except (ValueError, LookupError, TypeError):
            raise SlipwayError(f"Job {self._name} has said nothing for {FRESH_SECONDS} s") from None
        return dict(answers)

    def _end(self) -> None:
        name, self._name = self._name, ""
        if not name:
            return
        try:
            self.kubectl.ask(
                "delete", f"job/{name}", "--ignore-not-found", "--cascade=foreground", timeout=REMOVE_SECONDS
            )
        except SlipwayError as error:
            log.warning(f"Job {name} could not be removed, and ends by itself: {error.problems[0]}")


def _why(pods: Sequence[Object]) -> str:
    """Return why none of the `pods` of a Job runs."""
    statuses = [one for pod in pods[-1:] for one in pod["status"].get("containerStatuses", ())]
    ends = [one["state"]["terminated"] for one in statuses if one.get("state", {}).get("terminated")]
    if ends:
        return shorten(f"it ended: {ends[0].get('reason', '')} (exit code {ends[0].get('exitCode')})")
    return why_waiting(pods[-1] if pods else None)


def objects(name: str, image: str, address: str, questions: Sequence[str]) -> list[Json]:
    """Return what to apply: the Job `name` that asks in `image`, its script with the orders, and its ways.

    `image` (by digest) must have Python: that of the running release is on the nodes already, and known to start.
    """
    orders = {"address": address, "questions": list(questions), "every": EVERY, "warm_up": WARM_UP}
    scripts = {"asker.py": Path(asker.__file__).read_text(), "orders.json": json.dumps(orders)}
    volumes = {"/watch": {"configMap": {"name": name}}}
    template = {"metadata": {"labels": labels_of(NAME)}, "spec": pod_of(NAME, image, SCRIPT, volumes)}
    spec = {
        "backoffLimit": RESTARTS,
        "activeDeadlineSeconds": LIFE_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "template": template,
    }
    ways = {
        "podSelector": {"matchLabels": {COMPONENT_LABEL: NAME}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [],
        "egress": [_way_to(address), DNS],
    }
    # Not `managed-by`: whoever deploys meanwhile removes what no release has, except for Jobs.
    labels = {key: value for key, value in labels_of(NAME).items() if not key.endswith("/managed-by")}
    return [
        _object("batch/v1", "Job", name, labels_of(NAME), spec=spec),
        _object("v1", "ConfigMap", name, labels, data=scripts),
        _object("networking.k8s.io/v1", "NetworkPolicy", name, labels, spec=ways),
    ]


def _object(version: str, kind: str, name: str, labels: Mapping[str, str], **content: Any) -> Json:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": dict(labels)}, **content}


def _way_to(address: str) -> Json:
    """Return the rule that leads to `address`: into the namespace of a Service, otherwise anywhere by the one port.

    A policy knows pods, and not the Service that leads to them, whose port may be another one.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    names = host.rstrip(".").split(".")
    if _is_address(host) or names[2:3] not in ([], ["svc"]):
        return {"ports": [{"protocol": "TCP", "port": parts.port or 80}]}
    if len(names) == 1:
        return {"to": [{"podSelector": {}}]}
    return {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": names[1]}}}]}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
