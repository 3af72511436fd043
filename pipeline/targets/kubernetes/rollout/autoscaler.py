"""What a HorizontalPodAutoscaler does while a release is proved, and whether it can do its work at all.

Pure functions over what `kubectl get` says of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.targets.kubernetes.rollout.observation import Json, condition, epoch, named

__all__ = ["Reading", "moved", "overwhelmed", "reading_of", "scaling_findings"]

# Pods that are all new have no figures for a while, and a new autoscaler none at all: metrics-server looks each 15 s,
# and the autoscaler as often.
BLIND_SECONDS = 120
# What a new pod burns while it starts is out of the figures by then: a window of metrics-server and two looks at it.
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
        """Its figure, in words."""
        return "no figure of its CPU" if self.used is None else f"CPU {self.used} % where {self.wanted} % is its aim"


def reading_of(autoscaler: Json) -> Reading:
    """What AUTOSCALER says now."""
    spec, status = autoscaler["spec"], autoscaler.get("status", {})
    aims = [one["resource"]["target"] for one in spec.get("metrics") or () if _is_cpu(one)]
    figures = [one["resource"]["current"] for one in status.get("currentMetrics") or () if _is_cpu(one)]
    return Reading(
        name=named(autoscaler),
        replicas=status.get("currentReplicas", 0),
        most=spec["maxReplicas"],
        used=next((one.get("averageUtilization") for one in figures), None),
        wanted=next((one.get("averageUtilization") for one in aims), None),
    )


def moved(before: Reading, highest: Reading) -> str | None:
    """That it went up from BEFORE, in one line: worth knowing, and nothing wrong: the proof is load, too."""
    if highest.replicas <= before.replicas:
        return None
    return (
        f"the autoscaler {highest.name} went from {before.replicas} to {highest.replicas} replicas"
        f" (of {highest.most}; {highest.load})"
    )


def overwhelmed(before: Reading, now: Reading, seconds: float) -> str | None:
    """That the release cannot carry the load, SECONDS after the last of its pods got ready; None where it can.

    Where that was so BEFORE the rollout, too, it is the load's doing and not the release's.
    """
    if seconds < SETTLE_SECONDS or before.at_its_end or not now.at_its_end:
        return None
    return (
        f"it cannot carry the load: the autoscaler {now.name} is at its maximum of {now.most} replicas with {now.load},"
        f" and was at {before.replicas} before: find what eats the CPU, or raise maxReplicas"
    )


def scaling_findings(autoscaler: Json, now: float) -> list[str]:
    """What keeps AUTOSCALER from its work at NOW (seconds since the Unix epoch), one line each with its fix."""
    name, found = named(autoscaler), []
    for kind in ("AbleToScale", "ScalingActive"):
        one = condition(autoscaler, kind)
        if one.get("status") != "False" or now - epoch(one.get("lastTransitionTime")) < BLIND_SECONDS:
            continue
        said = " ".join(one.get("message", "").split())[:300]
        fix = "is metrics-server there, and are the requests set? `kubectl top pods`"
        if one.get("reason") == "ScalingDisabled":
            fix = "its Deployment has 0 replicas: give it one, and the autoscaler goes on"
        found.append(f"the autoscaler {name} does not scale ({one.get('reason')}): {said}: {fix}")
    reading, limited = reading_of(autoscaler), condition(autoscaler, "ScalingLimited")
    lasting = now - epoch(limited.get("lastTransitionTime")) >= BLIND_SECONDS  # a deploy's own traffic is no lack
    if reading.at_its_end and limited.get("status") == "True" and lasting:
        found.append(
            f"the autoscaler {name} is at its maximum of {reading.most} replicas with {reading.load}: raise"
            " maxReplicas (and the database's connections), or find what eats the CPU"
        )
    return found


def _is_cpu(metric: Json) -> bool:
    return bool(metric["type"] == "Resource" and metric["resource"]["name"] == "cpu")
