"""`[[tool.slipway.requests]]`: what the proof and the smoke test send, checked key by key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import UsageError

__all__ = ["PLACEHOLDER", "READS", "ReadBack", "Remove", "RequestSpec", "common", "parse_requests"]

PLACEHOLDER = re.compile(r"\{(unique|response(?:\.[\w-]+)+)\}")

READS = ("GET", "HEAD")
METHODS = (*READS, "POST", "PUT", "PATCH")
# The proof sets these itself; a second value would falsify its figures or its clean-up.
OWN_HEADERS = ("connection", "content-length", "host", "idempotency-key", "slipway-synthetic", "x-request-id")


@dataclass(frozen=True)
class ReadBack:
    """How a write is read back: GET `path` answers `status` and contains `expect` (None: what was sent)."""

    path: str
    status: int = 200
    expect: Any = None


@dataclass(frozen=True)
class Remove:
    """How a write is removed: `method` on `path` answers `status`."""

    path: str
    method: str = "DELETE"
    status: int = 204


@dataclass(frozen=True)
class RequestSpec:
    """One request of the table. `weight` is its share of the traffic, `expect` a subset of the answer's JSON.

    Texts may contain `{unique}`; the paths of `readback` and `remove` also values of the write's answer, such as
    `{response.id}`.
    """

    name: str
    method: str
    path: str
    weight: int = 1
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    expect: Any = None
    writes: bool = False
    readback: ReadBack | None = None
    remove: Remove | None = None

    def table(self) -> dict[str, Any]:
        """Return the JSON table from which `parse_requests` makes this spec again."""
        table = {key: value for key, value in vars(self).items() if value is not None}
        for key, step in (("readback", self.readback), ("remove", self.remove)):
            if step:
                table[key] = {name: value for name, value in vars(step).items() if value is not None}
        return table


def common(new: Sequence[RequestSpec], old: Sequence[RequestSpec]) -> tuple[RequestSpec, ...]:
    """Return the requests that both releases declare, whatever the weights: the ones that either can answer."""
    known = [replace(spec, weight=1) for spec in old]
    return tuple(spec for spec in new if replace(spec, weight=1) in known)


def parse_requests(tables: object, where: str = "pyproject.toml") -> tuple[RequestSpec, ...]:
    """Check and parse the `tables` of the file `where`. Raise `UsageError`: a line for each wrong key, with its fix."""
    header = f"{where} [[tool.slipway.requests]]"
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{header}: must be a list of tables: write `[[tool.slipway.requests]]` above each request")
    problems: list[str] = []
    names: set[str] = set()
    for position, table in enumerate(tables, start=1):
        name = table.get("name")
        here = f"{header} {f'`{name}`' if isinstance(name, str) and name else f'number {position}'}"
        problems += [f"{here}: {problem}" for problem in _table_problems(table)]
        if isinstance(name, str) and name in names:
            problems.append(f"{here}: name: used twice: give each request its own")
        names.add(str(name))
    if problems:
        raise UsageError(*problems)
    return tuple(_spec(table) for table in tables)


def _spec(table: Mapping[str, Any]) -> RequestSpec:
    values: dict[str, Any] = {"writes": table["method"] not in READS, **table}
    if "readback" in table:
        values["readback"] = ReadBack(**table["readback"])
    if "remove" in table:
        values["remove"] = Remove(**table["remove"])
    return RequestSpec(**values)


def _table_problems(table: Mapping[str, Any]) -> list[str]:
    problems = _key_problems(table, KEYS, ("name", "method", "path"), EXAMPLES)
    method = table.get("method")
    if method not in METHODS:
        return problems  # without a valid method it is not known whether the request writes
    writes = table.get("writes", method not in READS)
    if method in READS and writes is True:
        problems.append(f"writes: a {method} changes nothing: take the key out")
    for key, kinds in (("readback", READBACK_KEYS), ("remove", REMOVE_KEYS)):
        step = table.get(key)
        if step is None and writes:
            problems.append(f"missing key `{key}`: {EXAMPLES[key]} (or `writes = false` if it changes nothing)")
        elif step is not None and not writes:
            problems.append(f"`{key}` is for a write: take it out")
        elif isinstance(step, dict):
            problems += [f"{key}: {problem}" for problem in _key_problems(step, kinds, ("path",), EXAMPLES)]
    if method in READS and "body" in table:
        problems.append(f"body: a {method} has none: take it out")
    early = [key for key in ("path", "body", "headers") if "{response." in json.dumps(table.get(key), default=str)]
    problems += [f"{key}: `{{response…}}` is known after the write only: use `{{unique}}`" for key in early]
    return problems


Check = Callable[[Any], str | None]


def _key_problems(
    table: Mapping[str, Any], checks: Mapping[str, Check], needed: Iterable[str], examples: Mapping[str, str]
) -> list[str]:
    problems = [f"unknown key `{key}`: {_there_is(key, checks)}" for key in table if key not in checks]
    problems += [f"missing key `{key}`: {examples[key]}" for key in needed if key not in table]
    checked = ((key, checks[key](value)) for key, value in table.items() if key in checks)
    return problems + [f"{key}: {problem}" for key, problem in checked if problem]


def _there_is(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean `{close[0]}`?" if close else f"there is {', '.join(f'`{other}`' for other in known)}"


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "must be text"


def _is_path(value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        return 'must start with "/" and hold no space: quote other characters as in a URL'
    unknown = re.search(r"\{[^}]*\}", PLACEHOLDER.sub("", value))
    return f"unknown placeholder `{unknown[0]}`: there is `{{unique}}` and `{{response.KEY}}`" if unknown else None


def _is_one_of(*words: str) -> Check:
    return lambda value: None if value in words else f"must be one of {', '.join(words)}"


def _is_whole(lowest: int, highest: int, example: str) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
        return None if good else f"must be a whole number from {lowest} to {highest}, as in `{example}`"

    return check


def _is_json(value: Any) -> str | None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return "must be JSON: write dates as text, and no nan or inf"
    return None


def _is_flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _is_headers(value: Any) -> str | None:
    if not isinstance(value, dict) or not all(isinstance(text, str) and text.isascii() for text in value.values()):
        return 'must be a table of texts, as in `headers = { Accept-Language = "en" }`'
    own = [name for name in value if name.lower() in OWN_HEADERS]
    return f"`{own[0]}` is set by the proof itself: take it out" if own else None


def _is_table(value: Any) -> str | None:
    return None if isinstance(value, dict) else "must be a table"


EXAMPLES = {
    "name": 'for example `name = "list releases"`',
    "method": 'for example `method = "GET"`',
    "path": 'for example `path = "/api/v1/releases"`',
    "readback": 'say how the write is read back: `readback = { path = "/api/v1/releases/{response.id}" }`',
    "remove": 'say how the write is removed: `remove = { path = "/api/v1/releases/{response.id}" }`',
}
STATUS = _is_whole(200, 599, "status = 200")
KEYS: dict[str, Check] = {
    "name": _is_text,
    "method": _is_one_of(*METHODS),
    "path": _is_path,
    "weight": _is_whole(1, 1000, "weight = 1"),
    "body": _is_json,
    "headers": _is_headers,
    "status": STATUS,
    "expect": _is_json,
    "writes": _is_flag,
    "readback": _is_table,
    "remove": _is_table,
}
READBACK_KEYS: dict[str, Check] = {"path": _is_path, "status": STATUS, "expect": _is_json}
REMOVE_KEYS: dict[str, Check] = {
    "path": _is_path,
    "method": _is_one_of("DELETE", "POST", "PUT", "PATCH"),
    "status": STATUS,
}
