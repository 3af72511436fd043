"""What a deploy may do in its namespace, checked before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.engines.component_kinds import component_kinds
from pipeline.engines.kubectl import Kubectl, Object, as_list

__all__ = ["Resources", "access_problems", "missing_access", "needed_access", "pruned", "resources_of"]

APPLY = ("get", "create", "patch")
# What an overlay may hold of Kubernetes' own kinds; those of a component stand beside it.
OWN = {
    "ConfigMap": ("", "configmaps"),
    "CronJob": ("batch", "cronjobs"),
    "Deployment": ("apps", "deployments"),
    "HorizontalPodAutoscaler": ("autoscaling", "horizontalpodautoscalers"),
    "Job": ("batch", "jobs"),
    "NetworkPolicy": ("networking.k8s.io", "networkpolicies"),
    "PersistentVolumeClaim": ("", "persistentvolumeclaims"),
    "PodDisruptionBudget": ("policy", "poddisruptionbudgets"),
    "Secret": ("", "secrets"),
    "Service": ("", "services"),
    "ServiceAccount": ("", "serviceaccounts"),
    "StatefulSet": ("apps", "statefulsets"),
}
KEPT = frozenset({"PersistentVolumeClaim", "Secret", "StatefulSet", "Job"})
WATCHED = (("", "pods"), ("", "pods/log"), ("", "events"), ("", "persistentvolumeclaims"), ("apps", "replicasets"),
           ("autoscaling", "horizontalpodautoscalers"))  # fmt: skip
Need = tuple[str, str, str]  # verb, API group, resource
Resources = Mapping[str, tuple[str, str]]


def resources_of(root: Path) -> dict[str, tuple[str, str]]:
    """Return what an overlay of the project at `root` may hold: kind → (API group, resource)."""
    return {**OWN, **{kind: (one.group, one.resource) for kind, one in component_kinds(root).items()}}


def pruned(resources: Resources) -> frozenset[str]:
    """Return the kinds of what a release may leave behind, and is then removed: never data, or what holds it."""
    return frozenset(resources) - KEPT


def needed_access(kinds: Iterable[str], resources: Resources) -> list[Need]:
    """Return the permissions that a deploy of objects of these `kinds` needs."""
    needs = [(verb, *resources[kind]) for kind in sorted({*kinds, "ConfigMap"} & resources.keys()) for verb in APPLY]
    needs += [(verb, *one) for one in WATCHED for verb in (("get",) if one[1] == "pods/log" else ("list",))]
    needs += [(verb, "coordination.k8s.io", "leases") for verb in ("get", "create", "update")]
    gone = {*kinds, "ConfigMap", "Job"} & (pruned(resources) | {"Job"})
    needs += [("delete", *resources[kind]) for kind in sorted(gone)]
    return needs


def missing_access(needs: Iterable[Need], rules: Sequence[Mapping[str, Any]]) -> list[Need]:
    """Return those of `needs` that no rule of a SelfSubjectRulesReview allows.

    A rule for named objects counts, whatever it names.
    """
    return [need for need in needs if not any(_allows(rule, *need) for rule in rules)]


def access_problems(kubectl: Kubectl, kinds: Iterable[str], resources: Resources) -> list[str]:
    """Return one line, with its fix, for each kind of object that we may not touch as a deploy has to."""
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "metadata": {"name": "slipway"},
        "spec": {"namespace": kubectl.namespace},
    }
    created = kubectl.ask("create", "--filename=-", "--output=json", given=as_list([review]))
    [answer] = kubectl.items(created)
    by_resource: dict[tuple[str, str], list[str]] = {}
    for verb, group, resource in missing_access(needed_access(kinds, resources), answer["status"]["resourceRules"]):
        by_resource.setdefault((group, resource), []).append(verb)
    return [
        f"no permission to {', '.join(verbs)} {resource}{f'.{group}' if group else ''} in namespace"
        f" {kubectl.namespace}: ask an administrator to apply k8s/bootstrap, once, or to bind its Role deployer to you"
        " (`kubectl auth whoami`)"
        for (group, resource), verbs in by_resource.items()
    ]


def _allows(rule: Mapping[str, Any], verb: str, group: str, resource: str) -> bool:
    return all(
        given & {"*", wanted}
        for given, wanted in (
            (set(rule.get("verbs", ())), verb),
            (set(rule.get("apiGroups", ())), group),
            (set(rule.get("resources", ())), resource),
        )
    )
