"""The logs of pods, as `kubectl logs` shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.engines.kubectl import Kubectl
from pipeline.system.streams import Stream
from pipeline.targets.common.diagnosis import FOLLOWED_LINES
from pipeline.targets.kubernetes.rollout.observation import Json, named

__all__ = ["log_streams"]


def log_streams(kubectl: Kubectl, pods: Sequence[Json], *, follow: bool) -> list[Stream]:
    """Return what shows the log of each of the `pods`: of its first container, and of the one before that."""
    return [
        Stream(name, tuple(kubectl.command("logs", named(pod), f"--container={container}", *options)))
        for pod in pods
        for container, status in _containers(pod)
        for name, options in _parts(named(pod), status, follow=follow)
    ]


def _containers(pod: Json) -> Iterator[tuple[str, Json]]:
    """Yield the name and the status of the first container, if it has begun."""
    name = str(pod["spec"]["containers"][0]["name"])
    for status in pod["status"].get("containerStatuses", ()):
        if status["name"] == name and {"running", "terminated"} & {*status["state"], *status.get("lastState", {})}:
            yield name, status


def _parts(pod: str, status: Json, *, follow: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    running = status["state"].get("running")
    if follow:
        if running:  # its start tells it from the container before
            yield pod, ("--follow", f"--since-time={running['startedAt']}", f"--tail={FOLLOWED_LINES}")
        return
    if status.get("lastState", {}).get("terminated"):
        yield f"{pod} (before)", ("--previous",)
    if "waiting" not in status["state"]:
        yield pod, ()
