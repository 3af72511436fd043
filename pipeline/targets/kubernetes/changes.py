"""What a deploy would change in a cluster, from the API server's own dry run, in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.engines.kubectl import Object, describe, name_of

__all__ = ["Key", "changes", "conflicts", "key_of", "strangers"]

NOISE = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
# The cluster's own controllers: they set a Deployment's revision, a claim's volume.
CONTROLLERS = re.compile(r"kube-|cloud-controller|.*-provisioner|Go-http-client")
OURS = ("slipway", "slipway-cluster")
LONGEST = 60  # characters of a value
# `Apply failed with 1 conflict: conflict with "kubectl-edit" using apps/v1: .spec.template…`
CONFLICT = re.compile(r'conflicts? with "(?P<who>[^"]+)"[^:]*:\s*(?P<field>\.\S+)?')
Key = tuple[str, str]


def key_of(one: Object) -> Key:
    """Return what identifies an object within its namespace."""
    return one["kind"], one["metadata"]["name"]


def changes(live: Sequence[Object], wanted: Sequence[Object]) -> list[str]:
    """Return one line for each object that is new, and for each field whose value differs.

    `live`: the objects as they are. `wanted`: the objects as the dry run returns them.
    """
    there = {key_of(one): one for one in live}
    lines = []
    for after in wanted:
        before = there.get(key_of(after))
        if before is None:
            lines.append(f"{describe(after)}: new")
        elif after["kind"] == "Secret":
            lines += [f"{describe(after)}: a different value for {key}" for key in _secret_keys(before, after)]
        else:
            lines += [f"{describe(after)}: {line}" for line in _fields(_plain(before), _plain(after))]
    return lines


def conflicts(said: str) -> list[str]:
    """Return, in words, who else set what an apply without force would change; `said` is the output of kubectl."""
    owners = dict.fromkeys((match["who"], match["field"] or "") for match in CONFLICT.finditer(said))
    return [f"{field or 'a field'} has since been set by `{who}`: this deploy takes it back" for who, field in owners]


def strangers(live: Sequence[Object]) -> list[str]:
    """Return who else has set fields of the `live` objects.

    What they added is theirs by the rules of server-side apply, and stays.
    """
    lines = []
    for one in live:
        for entry in one["metadata"].get("managedFields", []):
            if entry.get("subresource") or entry["manager"] in OURS or CONTROLLERS.match(entry["manager"]):
                continue
            what = (
                f"{describe(one)} was also changed by `{entry['manager']}` ({entry.get('time', 'at an unknown time')})"
            )
            names = sorted(set(_variables(entry.get("fieldsV1") or {})))
            if names:
                unset = (
                    f"`kubectl set env {one['kind'].lower()}/{name_of(one)} {' '.join(f'{name}-' for name in names)}`"
                )
                lines.append(f"{what}: its {', '.join(names)} wins over the overlay's for good: {unset}")
            else:
                lines.append(f"{what}: whatever it added stays; `kubectl get -o yaml --show-managed-fields` shows it")
    return lines


def _variables(fields: Mapping[str, Any]) -> Iterator[str]:
    """Yield the environment variables among the `fields` of a manager, as server-side apply writes them (FieldsV1)."""
    for key, inner in fields.items():
        if key == "f:env":
            yield from (json.loads(name[2:])["name"] for name in inner if name.startswith("k:"))
        elif isinstance(inner, Mapping):
            yield from _variables(inner)


def _plain(one: Object) -> dict[str, Any]:
    metadata = {key: value for key, value in one["metadata"].items() if key not in NOISE}
    return {**{key: value for key, value in one.items() if key != "status"}, "metadata": metadata}


def _secret_keys(before: Object, after: Object) -> list[str]:
    old, new = before.get("data") or {}, after.get("data") or {}
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def _fields(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            yield from _fields(before.get(key), after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for old, new in zip(before, after, strict=True):
            name = new.get("name") if isinstance(new, Mapping) else None
            yield from _fields(old, new, f"{path}[{name or before.index(old)}]")
    else:
        yield f"{path.lstrip('.')}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    text = "(unset)" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
