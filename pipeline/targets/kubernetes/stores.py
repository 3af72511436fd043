"""The data stores of an overlay: whether they run, and what they report of themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, describe, name_of
from pipeline.errors import DeployFailed
from pipeline.system.waiting import attempts
from pipeline.targets.common.stores import probe_command, read_stores
from pipeline.targets.kubernetes.job import MigrateJob, policies_of, question_of
from pipeline.targets.kubernetes.release import Release
from pipeline.targets.kubernetes.rollout.observation import quantity

__all__ = ["ask_stores", "wait_for_store"]

POSTGRES = "app.kubernetes.io/component=postgres"
STORE_SECONDS = 180


def wait_for_store(
    kubectl: Kubectl, one: Object, findings: Callable[[], list[str]], tell: Callable[[str], None]
) -> None:
    """Wait until the StatefulSet `one` is as it was applied, and ready.

    Raise `DeployFailed` with the `findings` where that takes longer than `STORE_SECONDS`.
    """
    for _ in attempts(STORE_SECONDS, every=1, watch=lambda: tell(f"waiting for {describe(one)}")):
        [now] = kubectl.get("statefulset", name_of(one)) or [one]
        status, wanted = now.get("status", {}), now["spec"].get("replicas", 1)
        fresh = status.get("observedGeneration", 0) >= now["metadata"].get("generation", 1)
        if fresh and min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0)) >= wanted:
            return
    why = "; ".join(findings()) or f"`kubectl describe statefulset {name_of(one)}`"
    raise DeployFailed(f"{describe(one)} did not get ready within {STORE_SECONDS} s: {why}")


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
    for one in kubectl.get("persistentvolumeclaims", f"--selector={POSTGRES}"):
        stores["database"]["capacity"] = quantity(one.get("status", {}).get("capacity", {}).get("storage", "0"))
    return stores
