"""Placeholders in what the proof sends and expects, and the comparison of two JSON values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from pipeline.config.requests import FORM, PLACEHOLDER

__all__ = ["MissingValue", "Values", "mismatch"]


class MissingValue(Exception):
    """A placeholder names a value that the answer does not hold."""


@dataclass(frozen=True)
class Values:
    """The values of placeholders: `{unique}` differs for each request, `{response.a.b}` is taken from an answer.

    `number` differs, too: it is what `{unique:FORM}` spells, in the characters that the form allows.
    """

    unique: str
    response: Any = field(default=None)
    number: int = 0

    def fill(self, template: Any) -> Any:
        """Return `template`, any JSON value, with its placeholders replaced.

        The value of a placeholder that is the whole text keeps its type.
        """
        if isinstance(template, str):
            whole = PLACEHOLDER.fullmatch(template)
            return (
                self._value(whole[1]) if whole else PLACEHOLDER.sub(lambda match: str(self._value(match[1])), template)
            )
        if isinstance(template, Mapping):
            return {key: self.fill(value) for key, value in template.items()}
        if isinstance(template, list):
            return [self.fill(value) for value in template]
        return template

    def fill_path(self, template: str) -> str:
        """Return `template` with its placeholders replaced by values that are quoted for use in a path."""
        return PLACEHOLDER.sub(lambda match: quote(str(self._value(match[1])), safe=""), template)

    def _value(self, name: str) -> Any:
        if name == "unique":
            return self.unique
        if name.startswith("unique:"):
            return _spelled(self.number, name.removeprefix("unique:"))
        value = self.response
        for key in name.split(".")[1:]:
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (LookupError, TypeError, ValueError):
                raise MissingValue(f"the answer holds no `{name.removeprefix('response.')}`") from None
        return value


def _spelled(number: int, form: str) -> str:
    """Return `number` in the characters that `form` allows; numbers that follow each other differ."""
    spelled = []
    for character in reversed(form):
        allowed = FORM.get(character, character)
        number, position = divmod(number, len(allowed))
        spelled.append(allowed[position])
    return "".join(reversed(spelled))


def mismatch(actual: Any, expected: Any, where: str = "") -> str | None:
    """Return where `actual` does not contain `expected`, in words, or None when it does.

    Objects and lists may contain more than is expected, as with PostgreSQL's `@>`: an `expected` of `[]` means that
    there is a list.
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            path = f"{where}.{key}" if where else str(key)
            problem = mismatch(actual[key], value, path) if key in actual else f"`{path}` is missing"
            if problem:
                return problem
        return None
    if isinstance(expected, list) and isinstance(actual, list):
        lacking = (wanted for wanted in expected if all(mismatch(item, wanted) for item in actual))
        return next((f"`{where or 'the body'}` lacks {_brief(wanted)}" for wanted in lacking), None)
    # JSON's true is not 1, though Python's is.
    if actual == expected and isinstance(actual, bool) == isinstance(expected, bool):
        return None
    return f"`{where or 'the body'}` is {_brief(actual)}, not {_brief(expected)}"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - fits a line of a report
