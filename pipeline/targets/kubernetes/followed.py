"""A Job that says how far it is: its log is handed on line by line while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.engines.kubectl import Kubectl, Object, name_of
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.targets.common.diagnosis import LOG_LINES
from pipeline.targets.kubernetes.job import BY_WHOM, Ended, MigrateJob, Removed, why_waiting

__all__ = ["FollowedJob", "Lines", "exit_code"]

TICK_SECONDS = 1.0
START_SECONDS = 300  # its image may have to be pulled, its claim to be made


@dataclass
class Lines:
    """The lines for people of one `container` of `pod`, each handed to `tell` once; JSON is for programs."""

    kubectl: Kubectl
    pod: str
    container: str
    tell: Callable[[str], None]
    seen: str = field(default="", init=False)  # when the last one was said

    def hand_on(self) -> None:
        """Hand on what was said since the last time."""
        # By time and not by number: the kubelet begins a new file from time to time. `--since-time` knows seconds only.
        since = [f"--since-time={self.seen}"] if self.seen else []
        try:
            said = self.kubectl.ask("logs", self.pod, f"--container={self.container}", "--timestamps", *since)
        except SlipwayError:  # it does not run yet, or its node does not answer: the next time tells
            return
        for line in said.splitlines():
            when, _, text = line.partition(" ")
            if when > self.seen:
                self.seen = when
                if text.strip() and not text.startswith("{"):
                    self.tell(text)


@dataclass(frozen=True)
class FollowedJob(MigrateJob):
    """See `MigrateJob`: `tell` is called with each line of its log, and may raise."""

    def _wait(self, name: str, verb: str) -> str:
        started, lines = time.monotonic(), None
        while True:
            pod = self._pod(name)
            phase = pod["status"].get("phase") if pod else None
            if pod and phase in ("Running", "Succeeded", "Failed"):
                container = pod["spec"]["containers"][0]["name"]
                if lines is None or lines.pod != name_of(pod):
                    lines = Lines(self.kubectl, name_of(pod), container, self.tell)
                lines.hand_on()
            if pod and phase == "Succeeded":
                return self._log(pod)
            if pod and phase == "Failed":
                self._refuse_removed(pod)
                raise Ended(self.what, self._log(pod), exit_code(pod))
            if pod is None and self._ended(name):
                raise Removed(f"the pod of {self.what} was removed before its log could be read ({BY_WHOM})")
            over = self.limits.seconds if phase == "Running" else START_SECONDS
            if time.monotonic() - started > over:
                raise DeployFailed(
                    f"{self.what} did not {'end' if phase == 'Running' else 'start'} within {over:.0f} s:"
                    f" {why_waiting(pod)}"
                )
            time.sleep(TICK_SECONDS)

    def _log(self, pod: Object) -> str:
        return self.kubectl.ask("logs", name_of(pod), f"--tail={LOG_LINES}")


def exit_code(pod: Object) -> int:
    """Return the exit code with which the first container of a `pod` ended; 1 where it is not known."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    return int(statuses[0].get("state", {}).get("terminated", {}).get("exitCode", 1))
