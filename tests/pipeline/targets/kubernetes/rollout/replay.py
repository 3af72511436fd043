"""What a real cluster said second by second, played again (`record` made the recordings)."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tests.pipeline.targets.kubernetes.record import RECORDED, SECONDS

__all__ = ["at", "is_new", "one", "recording", "seconds_of"]


@cache
def recording(case: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((RECORDED / f"{case}.json").read_text())
    return values


def seconds_of(case: str) -> Iterator[tuple[float, list[dict[str, Any]]]]:
    """What is there at each second of CASE, whether or not it changed in it."""
    there: dict[str, dict[str, Any]] = {}
    frames = {int(frame["seconds"]): frame for frame in recording(case)["frames"]}
    for second in range(SECONDS + 1):
        frame = frames.get(second, {"changed": [], "gone": []})
        there.update({f"{item['kind']}/{item['metadata']['name']}": item for item in frame["changed"]})
        for key in frame["gone"]:
            del there[key]
        yield second, copy.deepcopy(list(there.values()))


def at(case: str, second: float) -> list[dict[str, Any]]:
    """What is there at a SECOND of CASE."""
    return next(items for when, items in seconds_of(case) if when == second)


def one(items: list[dict[str, Any]], kind: str, wanted: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
    return next(item for item in items if item["kind"] == kind and wanted(item))


def is_new(item: dict[str, Any]) -> bool:
    return bool(item["metadata"].get("annotations", {}).get("slipway/release") == "new")
