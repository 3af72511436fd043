"""Whether an image runs on the nodes, before they try.

A deployer may not list nodes, which are the whole cluster's. What serves says what they are, too: an image of one
platform alone that runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, Refused, name_of
from pipeline.registry.connection import RegistryError
from pipeline.registry.image import image_platforms
from pipeline.targets.kubernetes.objects import SERVICE, image_of

__all__ = ["foreign", "foreign_problem", "node_platforms"]

ARCHITECTURE, SYSTEM = "kubernetes.io/arch", "kubernetes.io/os"


def node_platforms(nodes: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The platforms (`linux/amd64`) of the NODES that take pods."""
    labels = [one["metadata"].get("labels", {}) for one in nodes if not one["spec"].get("unschedulable")]
    return frozenset(f"{one[SYSTEM]}/{one[ARCHITECTURE]}" for one in labels if {SYSTEM, ARCHITECTURE} <= one.keys())


def foreign(image: frozenset[str], nodes: frozenset[str], serving: frozenset[str]) -> str | None:
    """Why no node will run an IMAGE of these platforms, with the fix; None where one may, or nobody knows.

    NODES: their platforms, empty where they are not to be known. SERVING: those of the image that runs now.
    """
    alone = serving if len(serving) == 1 else frozenset()
    known = nodes or alone
    if not image or not known or image & known:
        return None
    of = "the nodes are" if nodes else "what serves runs on"
    theirs = ", ".join(sorted(known))
    return (
        f"its image is for {', '.join(sorted(image))}, and {of} {theirs}: build and push it for {theirs}"
        f" (`docker build --platform`), or an index that has both"
    )


def foreign_problem(
    kubectl: Kubectl, wanted: Sequence[Object], live: Sequence[Object], say: Callable[[str], None]
) -> str | None:
    """Whether the service's image in WANTED is of no platform that the nodes have; None too where the registry is away:
    who pulls will say so.
    """
    images = [image_of(one, SERVICE) for one in (*wanted, *live) if _is_service(one)]
    if not images or images[0] == images[-1]:
        return None
    nodes: list[Object] = []
    with contextlib.suppress(Refused):  # a deployer may not
        nodes = kubectl.get("nodes")
    try:
        return foreign(image_platforms(images[0]), node_platforms(nodes), image_platforms(images[-1]))
    except RegistryError as error:
        say(f"which platforms the image is for could not be asked: {error}")
        return None


def _is_service(one: Object) -> bool:
    return (one["kind"], name_of(one)) == ("Deployment", SERVICE)
