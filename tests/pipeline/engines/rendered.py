"""The trees of k8s/ as kustomize renders them, each once, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.engines.kustomize import Document, render, trees

__all__ = ["OVERLAYS", "ROOT", "bootstrap", "component", "containers", "one", "overlay", "pods", "settings", "stores"]

ROOT = Path(__file__).parents[3]
OVERLAYS = ("kind", "staging", "production")


@cache
def overlay(name: str) -> list[Document]:
    """The overlay NAME as the kubernetes target renders it."""
    [tree] = [each for each in trees(ROOT) if each.name == f"k8s/overlays/{name}"]
    return render(tree.kustomization)


@cache
def bootstrap(name: str) -> list[Document]:
    return render({"resources": [ROOT / "k8s/bootstrap" / name]})


def stores(name: str) -> set[str]:
    """The data stores that the overlay NAME brings along."""
    return {each["metadata"]["name"] for each in overlay(name) if each["kind"] == "StatefulSet"}


def one(documents: list[Document], kind: str, name: str) -> Document:
    found = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def settings(documents: list[Document]) -> dict[str, str]:
    (found,) = [each for each in documents if each["metadata"]["name"].startswith("settings-")]
    values: dict[str, str] = found["data"]
    return values


def pods(documents: list[Document]) -> Iterator[tuple[str, Any]]:
    for document in documents:
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        if "spec" in template:
            yield document["metadata"]["name"], template["spec"]


def containers(spec: Any) -> list[Any]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


@cache
def component(name: str) -> list[Document]:
    """The component NAME on the base."""
    [tree] = [each for each in trees(ROOT) if each.name == f"k8s/components/{name}"]
    return render(tree.kustomization)
