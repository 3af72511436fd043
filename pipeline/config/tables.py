"""Models of TOML tables, and what is wrong with a table: one line for each wrong key, with its fix."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

__all__ = ["Table", "Text", "read_table", "there_is"]

# What a value must be, by pydantic's name of the error.
WORDS = {
    "bool_type": "must be true or false",
    "date_type": "must be a day",
    "dict_type": "must be a table",
    "finite_number": "must have no nan or inf",
    "float_type": "must be a number",
    "greater_than_equal": "must be {ge:g} or more",
    "int_type": "must be a whole number",
    "invalid-json-value": "must be JSON: write dates as text",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be one of {expected}, not `{input}`",
    "model_type": "must be a table",
    "string_pattern_mismatch": "must be text",
    "string_type": "must be text",
    "too_short": "must not be empty",
    "tuple_type": "must be a list",
    "value_error": "{error}",  # of a validator of ours
}

Text = Annotated[str, Field(pattern=r"\S")]


class Table(BaseModel):
    """A table that accepts only its fields as keys, only values of their types, and never changes.

    An error shows the `description` of a field, else the first of its `examples` (in TOML), else its default. A field
    with `exclude` is not a key of the table: the caller passes it to `read_table`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    # The keys that similar tables have but this one does not, each with the reason.
    elsewhere: ClassVar[Mapping[str, str]] = {}


T = TypeVar("T", bound=Table)


def read_table(
    kind: type[T], table: Mapping[str, Any], where: str, problems: list[str], context: Path | None = None, **given: Any
) -> T | None:
    """Return the `table` at `where` as a `kind`, or None after adding a line to `problems` for each wrong key.

    `given` has the fields that are not keys. `context`, the root of the project, is for validators that ask for it.
    """
    problems += [f"{where}: {_unknown(kind, key)}" for key in given if key in table]
    try:
        return kind.model_validate({**table, **given}, context=context)
    except ValidationError as error:
        problems += dict.fromkeys(f"{where}: {_problem(kind, one['loc'], one)}" for one in error.errors())
        return None


def there_is(name: str, known: Iterable[str]) -> str:
    """Return the `known` name that `name` is probably meant to be, as a question, or all known names."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean `{close[0]}`?" if close else f"there is {', '.join(f'`{one}`' for one in known) or 'none'}"


def _problem(kind: type[Table], location: Sequence[str | int], error: ErrorDetails) -> str:
    key, rest = str(location[0]), location[1:]
    if key in kind.elsewhere:
        return f"`{key}` {kind.elsewhere[key]}: take it out"
    field = kind.model_fields.get(key)
    if field is None:
        return _unknown(kind, key)
    types = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
    inner = [one for one in types if issubclass(one, Table)]
    place, hinted = key, True
    if rest and isinstance(rest[0], int):  # of a list of tables
        place, hinted, rest = f"{key}, number {rest[0] + 1}", False, rest[1:]
    if rest and inner:
        return f"{place}: {_problem(inner[0], rest, error)}"
    if error["type"] == "missing":
        return f"missing key `{key}`: {_hint(key, field)}"
    words = WORDS[error["type"]].format(**error.get("ctx", {}), input=error["input"])
    hint = _hint(key, field) if hinted and words.startswith("must") else ""
    return f"{place}: {words}{'; ' if hint else ''}{hint}"


def _unknown(kind: type[Table], key: str) -> str:
    known = [one for one, field in kind.model_fields.items() if not field.exclude and one not in kind.elsewhere]
    return f"unknown key `{key}`: {there_is(key, known)}"


def _hint(key: str, field: FieldInfo) -> str:
    """Return a description or an example of the key; empty if it has neither."""
    if field.description or (field.examples is None and field.default is None):
        return field.description or ""
    value = field.examples[0] if field.examples else json.dumps(field.default)
    return f"for example `{key} = {value}`"
