"""Which objects of a release are applied when, and which of an old one are removed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from pipeline.config.settings import grace_seconds
from pipeline.engines.kubectl import FIELD_MANAGER, Object, name_of
from pipeline.targets.kubernetes.changes import Key, key_of
from pipeline.targets.kubernetes.release import SERVICE, Release, settings_of
from pipeline.targets.kubernetes.secret import SECRETS_ANNOTATION

__all__ = ["SERVICE", "before_migrations", "grace_problems", "image_of", "leftovers", "marked", "mounted"]

COMPONENT = "app.kubernetes.io/component"
STORES = ("postgres", "redis", "migrate", "backup")
# These exist before the migrations run; all others change with the rollout, under traffic.
FIRST = ("ConfigMap", "ServiceAccount", "Service", "PersistentVolumeClaim", "StatefulSet", "ExternalSecret")
RECORD, FACTS = "slipway/record", "slipway/facts"
GRACE = "terminationGracePeriodSeconds"
DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own


def grace_problems(manifests: Iterable[Object], overlay: str) -> list[str]:
    """Return a line where Kubernetes would kill a pod of the service before its settings let it leave.

    `manifests` are what `overlay` renders to.
    """
    objects = list(manifests)
    service = [each for each in objects if (each["kind"], name_of(each)) == ("Deployment", SERVICE)]
    needed = grace_seconds(settings_of(objects))
    given = [each["spec"]["template"]["spec"].get(GRACE, DEFAULT_GRACE_SECONDS) for each in service]
    return [
        f"{overlay}: {GRACE} of Deployment {SERVICE} is {seconds}, and its pods need {needed} (DRAIN_SECONDS,"
        " REQUEST_TIMEOUT_SECONDS, and 10 s for their end): raise it, or lower those settings"
        for seconds in given
        if seconds < needed
    ]


def image_of(deployment: Object, container: str) -> str:
    """Return the image that the `container` of a Deployment runs."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    return str(next(one["image"] for one in containers if one["name"] == container))


def before_migrations(release: Release, *, serving: bool) -> list[Object]:
    """Return what the migrations of `release` need: settings, data stores, who may reach them.

    Where a release is `serving`, leave out whatever changes what that one does.
    """
    policies = [one for one in release.objects(["NetworkPolicy"]) if not serving or _component(one) in STORES]
    return [*release.objects(FIRST), *policies]


def marked(objects: Iterable[Object], marks: Mapping[str, str]) -> list[Object]:
    """Return copies of `objects` whose pod templates carry `marks`, so that another secret makes other pods.

    `marks`: the name of a Deployment or StatefulSet → a fingerprint of the secrets that its pods start with.
    """
    copies: list[Object] = json.loads(json.dumps(list(objects)))
    for one in copies:
        if one["kind"] in ("Deployment", "StatefulSet") and name_of(one) in marks:
            template = one["spec"]["template"]["metadata"]
            template.setdefault("annotations", {})[SECRETS_ANNOTATION] = marks[name_of(one)]
    return copies


def leftovers(live: Sequence[Object], needed: Iterable[Key], kinds: Collection[str]) -> list[Object]:
    """Return those of the `live` objects of `kinds` that deploys applied and that are not among `needed` any more."""
    needed = set(needed)
    return [one for one in live if key_of(one) not in needed and one["kind"] in kinds and _applied_by_deploys(one)]


def mounted(live: Iterable[Object]) -> set[Key]:
    """Return the ConfigMaps that the pods of the `live` StatefulSets mount."""
    volumes = [each for one in live for each in one["spec"]["template"]["spec"].get("volumes") or ()]
    return {("ConfigMap", each["configMap"]["name"]) for each in volumes if "configMap" in each}


def _component(one: Object) -> str:
    return str(one["metadata"].get("labels", {}).get(COMPONENT, ""))


def _applied_by_deploys(one: Object) -> bool:
    if {RECORD, FACTS} & {*one["metadata"].get("labels", {})}:
        return False  # a release record: `Records` decides when it is removed; what is known for the metrics stays
    return any(field["manager"] == FIELD_MANAGER for field in one["metadata"].get("managedFields", []))
