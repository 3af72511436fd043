"""Whether an image runs on the nodes, before they try.

A deployer may not list nodes, which are the whole cluster's. What serves says what they are, too: an image of one
platform alone that runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["foreign", "node_platforms"]

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
