"""The kinds of object that components of k8s/ bring: each says its own, in its folder `rights`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.errors import UsageError

__all__ = ["ComponentKind", "component_kinds"]

FILES = "k8s/components/*/rights/kinds.yaml"


@dataclass(frozen=True)
class ComponentKind:
    """A kind as the API server has it: the version of its API, and its name in paths and Roles."""

    api_version: str
    resource: str

    @property
    def group(self) -> str:
        """The group of its API; "" is the core's."""
        return self.api_version.rpartition("/")[0]


def component_kinds(root: Path) -> dict[str, ComponentKind]:
    """Return the kinds of the components below `root`, by name. Raise `UsageError` with a file that says none."""
    found = {}
    for path in sorted(root.glob(FILES)):
        try:
            for kind, said in yaml.safe_load(path.read_text(encoding="utf-8")).items():
                found[kind] = ComponentKind(said["apiVersion"], said["resource"])
        except (yaml.YAMLError, AttributeError, KeyError, TypeError):
            what = "must say of each kind `KIND: {apiVersion: GROUP/VERSION, resource: PLURAL}`"
            raise UsageError(f"{path.relative_to(root)}: {what}") from None
    return found
