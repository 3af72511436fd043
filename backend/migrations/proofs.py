"""What migrations before it make safe: a NOT NULL that a validated check already guarantees, and the end of that check.

`SET NOT NULL` reads the whole table under a lock that stops everybody, unless a validated `CHECK (column IS NOT NULL)`
is there (PostgreSQL 12 and newer). The linter sees one file, so it cannot know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.migrations.statements import bare_name, statements_of

__all__ = ["DROPS_CHECK", "SETS_NOT_NULL", "Proofs"]

SETS_NOT_NULL = "adding-not-nullable-field"  # squawk's names of what is proven here
DROPS_CHECK = "ban-drop-constraint"
IS_NOT_NULL = ("is", "not", "null")
LENIENT = ("if", "exists", "only")


class Proofs:
    """The checks that the migrations read so far have added: table and constraint → the column that is never null."""

    def __init__(self) -> None:
        self._checks: dict[tuple[str, str], str] = {}
        self._validated: set[tuple[str, str]] = set()
        self._not_null: set[tuple[str, str]] = set()

    def read(self, sql: str) -> tuple[str, ...]:
        """Read the next migration; return the linter's rules of which each case in it is proven to be harmless."""
        seen: dict[str, list[bool]] = {}
        for words in statements_of(sql):
            for table, action in _actions(words):
                for rule, proven in self._read(table, action):
                    seen.setdefault(rule, []).append(proven)
        return tuple(rule for rule, cases in seen.items() if all(cases))

    def _read(self, table: str, action: Sequence[str]) -> Iterator[tuple[str, bool]]:
        words = list(action)
        if words[:2] == ["add", "constraint"] and words[3:5] == ["check", "("] and words[6:10] == [*IS_NOT_NULL, ")"]:
            self._checks[table, bare_name(words[2])] = bare_name(words[5])
            if words[10:12] != ["not", "valid"]:
                self._validated.add((table, bare_name(words[2])))
        elif words[:2] == ["validate", "constraint"]:
            self._validated.add((table, bare_name(words[2])))
        elif words[:1] == ["alter"] and words[-3:] == ["set", "not", "null"]:
            column = bare_name(words[-4])
            proven = any(self._checks.get(check) == column and check[0] == table for check in self._validated)
            if proven:
                self._not_null.add((table, column))
            yield SETS_NOT_NULL, proven
        elif words[:2] == ["drop", "constraint"]:
            name = bare_name(next((word for word in words[2:] if word not in ("if", "exists")), ""))
            yield DROPS_CHECK, (table, self._checks.pop((table, name), "")) in self._not_null
            self._validated.discard((table, name))


def _actions(words: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each action of an ALTER TABLE, with the table's name; nothing for another statement."""
    if list(words[:2]) != ["alter", "table"]:
        return
    start = next((index for index, word in enumerate(words) if index > 1 and word not in LENIENT), len(words))
    end = start + 1
    while words[end : end + 1] == ["."]:
        end += 2
    table, depth, action = bare_name("".join(words[start:end])), 0, list[str]()
    for word in words[end:]:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if word == "," and depth == 0:
            yield table, action
            action = []
        else:
            action.append(word)
    yield table, action
