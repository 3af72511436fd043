"""`[[tool.slipway.requests]]`: what the proof and the smoke test send."""

from __future__ import annotations

import itertools
import json
import math
import re
import string
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationInfo, field_validator

from pipeline.config.tables import Table, Text, read_table
from pipeline.errors import UsageError

__all__ = [
    "COMMAND",
    "FORM",
    "PLACEHOLDER",
    "READS",
    "ReadBack",
    "Remove",
    "RequestSpec",
    "Step",
    "common",
    "parse_requests",
    "renamed",
]

PLACEHOLDER = re.compile(r"\{(unique(?::[^{}]+)?|response(?:\.[\w-]+)+)\}")
# What a character of a form stands for: `{unique:AA-0000000}` is two capital letters, a hyphen and seven digits.
FORM = {"0": string.digits, "x": f"{string.digits}abcdef", "a": string.ascii_lowercase, "A": string.ascii_uppercase}
FEWEST_VALUES = 10**6  # of a form: a proof writes thousands of times, and must meet nothing that is there already

READS = ("GET", "HEAD")
CHANGES = ("POST", "PUT", "PATCH")
COMMAND = "command"  # the `remove` of a write that has no public DELETE: `python -m backend.synthetic remove`
# The proof sets these itself; a second value would falsify its figures or its clean-up.
OWN_HEADERS = ("connection", "content-length", "host", "idempotency-key", "slipway-synthetic", "x-request-id")
# `/…` is replaced with the path of the request that has the problem.
STEP = '`{} = {{ path = "/…/{{response.id}}" }}`{} (or `writes = false` if it changes nothing)'
NO_DELETE = ' or, for a service without a DELETE, `remove = "command"`'


def _placeholders(value: Any) -> Any:
    """Return `value`; refuse a form of `{unique}` that has too few values, wherever in `value` it is."""
    for name in PLACEHOLDER.findall(json.dumps(value, ensure_ascii=False)):
        form = name.partition(":")[2]
        size = math.prod(len(FORM.get(character, "-")) for character in form)
        if form and size < FEWEST_VALUES:
            raise ValueError(
                f"`{{{name}}}` has {size} values and needs a million: `0` is any digit, `a` and `A` any"
                " letter, `x` any hexadecimal digit"
            )
    return value


def _path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError('must start with "/" and hold no space: quote other characters as in a URL')
    unknown = re.search(r"\{[^}]*\}", PLACEHOLDER.sub("", value))
    if unknown:
        raise ValueError(f"unknown placeholder `{unknown[0]}`: there is `{{unique}}` and `{{response.KEY}}`")
    _placeholders(value)
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    own = [name for name in value if name.lower() in OWN_HEADERS]
    if own:
        raise ValueError(f"`{own[0]}` is set by the proof itself: take it out")
    if not all(text.isascii() for text in value.values()):
        raise ValueError("must be ASCII")
    return value


UrlPath = Annotated[str, AfterValidator(_path), Field(examples=['"/notes"'])]
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


class Step(Table):
    """One call: what is sent, and what must come back. `expect` is a subset of the answer's JSON.

    `seconds`: how long the answer may take, where that is another time than for the rest; it has no part in latencies.
    Texts may contain `{unique}` and, after a write, values of its answer, such as `{response.id}`.
    """

    name: Text = Field(examples=['"list notes"'])
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = Field(examples=['"GET"'])
    path: UrlPath
    body: JsonValue = None
    headers: Headers = Field(default={})
    status: Status = 200
    expect: JsonValue = None
    seconds: Annotated[float, Field(gt=0, le=600)] | None = None

    _forms = field_validator("body", "headers")(_placeholders)

    @field_validator("body")
    @classmethod
    def _has_a_method_for_it(cls, body: Any, info: ValidationInfo) -> Any:
        if body is not None and info.data.get("method") in READS:
            raise ValueError(f"is for {', '.join(CHANGES)}: take it out")
        return body

    @property
    def changes(self) -> bool:
        """Whether it changes something, and so has an `Idempotency-Key`."""
        return self.method not in READS


class RequestSpec(Step):
    """One request of the table. `weight` is its share of the traffic, its steps in `then` included.

    The paths of `readback` and `remove`, and all of `then`, may contain values of the write's answer.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH"] = Field(examples=['"GET"'])
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    writes: bool = False
    readback: ReadBack | None = None
    remove: Remove | Literal["command"] | None = None
    then: Annotated[tuple[Step, ...], Field(strict=False)] = ()

    @field_validator("path", "body", "headers")
    @classmethod
    def _is_known_before_the_answer(cls, value: Any) -> Any:
        if "{response." in json.dumps(value):
            raise ValueError("`{response…}` is known after the write only: use `{unique}`, or a step in `then`")
        return value

    @property
    def changes(self) -> bool:
        """Whether it writes."""
        return self.writes

    def table(self) -> dict[str, Any]:
        """Return the JSON table from which `parse_requests` makes this spec again."""
        values = self.model_dump(mode="json", exclude_none=True)
        # A release that has none can be read by a pipeline that does not know the key.
        return values if self.then else {key: value for key, value in values.items() if key != "then"}


# What a request does decides which keys it has: `_kind` chooses. A search could write by its method, and does not.
class _Search(RequestSpec):
    readback: None = None
    remove: None = None
    then: tuple[()] = ()
    elsewhere: ClassVar = dict.fromkeys(("readback", "remove", "then"), "is for a write")


class _Read(_Search):
    body: None = None
    writes: Annotated[bool, Field(le=False)] = False  # `Literal[False]` would take 0
    elsewhere: ClassVar = {**_Search.elsewhere, **dict.fromkeys(("body", "writes"), f"is for {', '.join(CHANGES)}")}


class _Write(RequestSpec):
    writes: bool = True
    readback: ReadBack = Field(description=f"say how the write is read back: {STEP.format('readback', '')}")


class _RemovedByCall(_Write):
    remove: Remove = Field(description=f"say how the write is removed: {STEP.format('remove', NO_DELETE)}")


class _RemovedByCommand(_Write):
    remove: Literal["command"]


class _Unknown(RequestSpec):  # what its tables must be depends on the method
    readback: Any = None
    remove: Any = None
    then: Any = ()


def common(new: Sequence[RequestSpec], old: Sequence[RequestSpec]) -> tuple[RequestSpec, ...]:
    """Return the requests that both releases declare, whatever the weights and the names: either can answer them.

    Of a write, the steps in `then` that both begin with.
    """
    pairs = ((spec, _same(spec, old)) for spec in new)
    return tuple(spec.model_copy(update={"then": _alike(spec.then, same.then)}) for spec, same in pairs if same)


def renamed(new: Sequence[RequestSpec], old: Sequence[RequestSpec]) -> list[tuple[str, str]]:
    """Return the former and the present name of each request that has another one now."""
    pairs = ((spec, _same(spec, old)) for spec in new)
    return [(same.name, spec.name) for spec, same in pairs if same and same.name != spec.name]


def _same(spec: RequestSpec, others: Sequence[RequestSpec]) -> RequestSpec | None:
    """Return the one of `others` that sends and expects the same, and rather one of the same name."""
    same = [one for one in others if _itself(one) == _itself(spec)]
    return next((one for one in same if one.name == spec.name), same[0] if same else None)


def _itself(spec: RequestSpec) -> RequestSpec:
    return spec.model_copy(update={"name": "", "weight": 1, "then": ()})


def _alike(new: Sequence[Step], old: Sequence[Step]) -> tuple[Step, ...]:
    """Return what both begin with: a step may rest on the one before it."""
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(new, old, strict=False))
    return tuple(step for step, _ in pairs)


def parse_requests(tables: object, where: str = "pyproject.toml") -> tuple[RequestSpec, ...]:
    """Check and parse the `tables` of the file `where`. Raise `UsageError`: a line for each wrong key, with its fix."""
    header = f"{where} [[tool.slipway.requests]]"
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{header}: must be a list of tables: write `[[tool.slipway.requests]]` above each request")
    problems: list[str] = []
    specs: list[RequestSpec | None] = []
    names: list[str] = []
    for position, table in enumerate(tables, start=1):
        name = table.get("name")
        here = f"{header} {f'`{name}`' if isinstance(name, str) and name else f'number {position}'}"
        found: list[str] = []
        specs.append(read_table(_kind(table), table, here, found))
        problems += [line.replace('"/…', f'"{_place(table)}') for line in found]
        for name in _names(table):
            if name in names:
                problems.append(f"{here}: name: `{name}` is used twice: give each request and each step its own")
            names.append(name)
    if problems:
        raise UsageError(*problems)
    return tuple(filter(None, specs))


def _names(table: Mapping[str, Any]) -> list[str]:
    """Return the names of a request and of its steps, as far as they are names."""
    steps = table.get("then")
    tables = [table, *(steps if isinstance(steps, list | tuple) else ())]
    return [one["name"] for one in tables if isinstance(one, dict) and isinstance(one.get("name"), str)]


def _place(table: Mapping[str, Any]) -> str:
    """Return the path of a request, for an example of how it is read back; one of our own where it has none."""
    path = table.get("path")
    return path.partition("?")[0].rstrip("/") if isinstance(path, str) and path.startswith("/") else "/notes"


def _kind(table: Mapping[str, Any]) -> type[RequestSpec]:
    """Return what `table` is; without a valid method it is not known which keys it needs."""
    method = table.get("method")
    if method in READS:
        return _Read
    if method not in CHANGES:
        return _Unknown
    if not table.get("writes", True):
        return _Search
    return _RemovedByCommand if table.get("remove") == COMMAND else _RemovedByCall
