"""Whether an image can run on the nodes, found out before they try.

A deployer may lack permission to list nodes, which belong to the whole cluster. What serves then tells their platform,
where its image is for one platform alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, Refused, name_of
from pipeline.registry.connection import RegistryError
from pipeline.registry.image import image_platforms
from pipeline.targets.kubernetes.objects import SERVICE, image_of

__all__ = ["foreign", "foreign_problem", "node_platforms"]

log = logging.getLogger(__name__)

ARCHITECTURE, SYSTEM = "kubernetes.io/arch", "kubernetes.io/os"


def node_platforms(nodes: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the platforms (`linux/amd64`) of those `nodes` that take pods."""
    labels = [one["metadata"].get("labels", {}) for one in nodes if not one["spec"].get("unschedulable")]
    return frozenset(f"{one[SYSTEM]}/{one[ARCHITECTURE]}" for one in labels if {SYSTEM, ARCHITECTURE} <= one.keys())


def foreign(image: frozenset[str], nodes: frozenset[str], serving: frozenset[str]) -> str | None:
    """Return why no node will run an image, with the fix; None where one may, or where nobody knows.

    `image`: the platforms of the image. `nodes`: those of the nodes, empty where they cannot be known. `serving`: those
    of the image that runs now.
    """
    alone = serving if len(serving) == 1 else frozenset()
    known = nodes or alone
    if not image or not known or image & known:
        return None
    of = "the nodes are" if nodes else "the pods that serve run on"
    theirs = ", ".join(sorted(known))
    return (
        f"its image is for {', '.join(sorted(image))}, and {of} {theirs}: build and push it for {theirs}"
        f" (`docker build --platform`), or an index that has both"
    )


def foreign_problem(kubectl: Kubectl, wanted: Sequence[Object], live: Sequence[Object]) -> str | None:
    """Return why no node will run the service's image in `wanted`, with the fix; None where one may.

    `live`: the objects that run now. None also where the registry is away.
    """
    images = [image_of(one, SERVICE) for one in (*wanted, *live) if _is_service(one)]
    if not images or images[0] == images[-1]:
        return None
    nodes: list[Object] = []
    with contextlib.suppress(Refused):  # a deployer may lack the permission
        nodes = kubectl.get("nodes")
    try:
        return foreign(image_platforms(images[0]), node_platforms(nodes), image_platforms(images[-1]))
    except RegistryError as error:
        log.warning(f"could not find out which platforms the image is for: {error}")
        return None  # if it is still away when the nodes pull, they will say so


def _is_service(one: Object) -> bool:
    return (one["kind"], name_of(one)) == ("Deployment", SERVICE)
