"""`[[tool.slipway.requests]]`: what the proof and the smoke test send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue, field_validator

from pipeline.config.tables import Table, Text, read_table
from pipeline.errors import UsageError

__all__ = ["PLACEHOLDER", "READS", "ReadBack", "Remove", "RequestSpec", "common", "parse_requests"]

PLACEHOLDER = re.compile(r"\{(unique|response(?:\.[\w-]+)+)\}")

READS = ("GET", "HEAD")
CHANGES = ("POST", "PUT", "PATCH")
# The proof sets these itself; a second value would falsify its figures or its clean-up.
OWN_HEADERS = ("connection", "content-length", "host", "idempotency-key", "slipway-synthetic", "x-request-id")
STEP = '`{} = {{ path = "/api/v1/releases/{{response.id}}" }}` (or `writes = false` if it changes nothing)'


def _path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError('must start with "/" and hold no space: quote other characters as in a URL')
    unknown = re.search(r"\{[^}]*\}", PLACEHOLDER.sub("", value))
    if unknown:
        raise ValueError(f"unknown placeholder `{unknown[0]}`: there is `{{unique}}` and `{{response.KEY}}`")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    own = [name for name in value if name.lower() in OWN_HEADERS]
    if own:
        raise ValueError(f"`{own[0]}` is set by the proof itself: take it out")
    if not all(text.isascii() for text in value.values()):
        raise ValueError("must be ASCII")
    return value


UrlPath = Annotated[str, AfterValidator(_path), Field(examples=['"/api/v1/releases"'])]
Headers = Annotated[dict[str, str], AfterValidator(_headers), Field(examples=['{ Accept-Language = "en" }'])]
Status = Annotated[int, Field(ge=200, le=599)]


class ReadBack(Table):
    """How a write is read back: GET `path` answers `status` and contains `expect` (None: what was sent)."""

    path: UrlPath
    status: Status = 200
    expect: JsonValue = None


class Remove(Table):
    """How a write is removed: `method` on `path` answers `status`."""

    path: UrlPath
    method: Literal["DELETE", "POST", "PUT", "PATCH"] = "DELETE"
    status: Status = 204


class RequestSpec(Table):
    """One request of the table. `weight` is its share of the traffic, `expect` a subset of the answer's JSON.

    Texts may contain `{unique}`; the paths of `readback` and `remove` also values of the write's answer, such as
    `{response.id}`.
    """

    name: Text = Field(examples=['"list releases"'])
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH"] = Field(examples=['"GET"'])
    path: UrlPath
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    body: JsonValue = None
    headers: Headers = Field(default={})
    status: Status = 200
    expect: JsonValue = None
    writes: bool = False
    readback: ReadBack | None = None
    remove: Remove | None = None

    @field_validator("path", "body", "headers")
    @classmethod
    def _is_known_before_the_answer(cls, value: Any) -> Any:
        if "{response." in json.dumps(value):
            raise ValueError("`{response…}` is known after the write only: use `{unique}`")
        return value

    def table(self) -> dict[str, Any]:
        """Return the JSON table from which `parse_requests` makes this spec again."""
        return self.model_dump(exclude_none=True)


# What a request does decides which keys it has: `_kind` chooses. A search could write by its method, and does not.
class _Search(RequestSpec):
    readback: None = None
    remove: None = None
    elsewhere: ClassVar = dict.fromkeys(("readback", "remove"), "is for a write")


class _Read(_Search):
    body: None = None
    writes: Annotated[bool, Field(le=False)] = False  # `Literal[False]` would take 0
    elsewhere: ClassVar = {**_Search.elsewhere, **dict.fromkeys(("body", "writes"), f"is for {', '.join(CHANGES)}")}


class _Write(RequestSpec):
    writes: bool = True
    readback: ReadBack = Field(description=f"say how the write is read back: {STEP.format('readback')}")
    remove: Remove = Field(description=f"say how the write is removed: {STEP.format('remove')}")


def common(new: Sequence[RequestSpec], old: Sequence[RequestSpec]) -> tuple[RequestSpec, ...]:
    """Return the requests that both releases declare, whatever the weights: the ones that either can answer."""
    known = [spec.model_copy(update={"weight": 1}) for spec in old]
    return tuple(spec for spec in new if spec.model_copy(update={"weight": 1}) in known)


def parse_requests(tables: object, where: str = "pyproject.toml") -> tuple[RequestSpec, ...]:
    """Check and parse the `tables` of the file `where`. Raise `UsageError`: a line for each wrong key, with its fix."""
    header = f"{where} [[tool.slipway.requests]]"
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{header}: must be a list of tables: write `[[tool.slipway.requests]]` above each request")
    problems: list[str] = []
    specs, names = [], []
    for position, table in enumerate(tables, start=1):
        name = table.get("name")
        here = f"{header} {f'`{name}`' if isinstance(name, str) and name else f'number {position}'}"
        specs.append(read_table(_kind(table), table, here, problems))
        if isinstance(name, str) and name in names:
            problems.append(f"{here}: name: used twice: give each request its own")
        names.append(name)
    if problems:
        raise UsageError(*problems)
    return tuple(filter(None, specs))


def _kind(table: Mapping[str, Any]) -> type[RequestSpec]:
    """Return what `table` is; without a valid method it is not known which keys it needs."""
    method = table.get("method")
    if method in READS:
        return _Read
    if method in CHANGES:
        return _Write if table.get("writes", True) else _Search
    return RequestSpec
