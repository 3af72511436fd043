"""What a HorizontalPodAutoscaler does while a release is proved, and whether it can do its work at all.

Pure functions over what `kubectl get` says of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.system.text import shorten
from pipeline.targets.kubernetes.rollout.observation import Json, condition, epoch, named

__all__ = ["Reading", "moved", "overwhelmed", "reading_of", "scaling_findings"]

# Pods that are all new have no figures for a while, and a new autoscaler none at all: metrics-server takes them every
# 15 s, and the autoscaler looks as often.
BLIND_SECONDS = 120
# By then the figures no longer contain what a new pod burns at its start: after a window of metrics-server, and two
# looks at it.
SETTLE_SECONDS = 45.0


@dataclass(frozen=True)
class Reading:
    """An autoscaler at one moment. `used`, `wanted`: percent of the pods' CPU requests; None where it has no figure."""

    name: str
    replicas: int
    most: int
    used: int | None
    wanted: int | None

    @property
    def at_its_end(self) -> bool:
        """Whether it would need more replicas than it may have."""
        return self.replicas >= self.most and self.used is not None and self.used > (self.wanted or self.used)

    @property
    def load(self) -> str:
        """The CPU figure and its target, in words."""
        return "no CPU figure" if self.used is None else f"CPU at {self.used} % against a target of {self.wanted} %"


def reading_of(autoscaler: Json) -> Reading:
    """Return what `autoscaler` says now."""
    spec, status = autoscaler["spec"], autoscaler.get("status", {})
    targets = [one["resource"]["target"] for one in spec.get("metrics") or () if _is_cpu(one)]
    figures = [one["resource"]["current"] for one in status.get("currentMetrics") or () if _is_cpu(one)]
    return Reading(
        name=named(autoscaler),
        replicas=status.get("currentReplicas", 0),
        most=spec["maxReplicas"],
        used=next((one.get("averageUtilization") for one in figures), None),
        wanted=next((one.get("averageUtilization") for one in targets), None),
    )


def moved(before: Reading, highest: Reading) -> str | None:
    """Return one line saying that the autoscaler went up from `before`; None where it did not."""
    # This is worth knowing, and nothing is wrong with it: the proof is load, too.
    if highest.replicas <= before.replicas:
        return None
    return (
        f"the autoscaler {highest.name} went from {before.replicas} to {highest.replicas} replicas"
        f" (of {highest.most}; {highest.load})"
    )


def overwhelmed(before: Reading, now: Reading, seconds: float) -> str | None:
    """Return why the release cannot carry the load, `seconds` after its last pod got ready; None where it can.

    Where that was so `before` the rollout, too, the load is the cause and not the release.
    """
    if seconds < SETTLE_SECONDS or before.at_its_end or not now.at_its_end:
        return None
    return (
        f"it cannot carry the load: the autoscaler {now.name} is at its maximum of {now.most} replicas with {now.load},"
        f" and was at {before.replicas} before: find what eats the CPU, or raise maxReplicas"
    )


def scaling_findings(autoscaler: Json, now: float) -> list[str]:
    """Return what keeps `autoscaler` from its work at `now`, one line each with its fix.

    `now`: seconds since the Unix epoch.
    """
    name, lines = named(autoscaler), []
    for kind in ("AbleToScale", "ScalingActive"):
        one = condition(autoscaler, kind)
        if one.get("status") != "False" or now - epoch(one.get("lastTransitionTime")) < BLIND_SECONDS:
            continue
        message = shorten(" ".join(one.get("message", "").split()))
        fix = "check that metrics-server runs and that requests are set (`kubectl top pods`)"
        if one.get("reason") == "ScalingDisabled":
            fix = "its Deployment has 0 replicas: give it one, and the autoscaler resumes"
        lines.append(f"the autoscaler {name} does not scale ({one.get('reason')}): {message}: {fix}")
    reading, limited = reading_of(autoscaler), condition(autoscaler, "ScalingLimited")
    # A deploy's own traffic, which does not last, is not a shortage.
    lasting = now - epoch(limited.get("lastTransitionTime")) >= BLIND_SECONDS
    if reading.at_its_end and limited.get("status") == "True" and lasting:
        lines.append(
            f"the autoscaler {name} is at its maximum of {reading.most} replicas with {reading.load}: raise"
            " maxReplicas (and the database's connections), or find what eats the CPU"
        )
    return lines


def _is_cpu(metric: Json) -> bool:
    return bool(metric["type"] == "Resource" and metric["resource"]["name"] == "cpu")
