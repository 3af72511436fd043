"""What a migration names that is not of its own making: extensions, roles, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.migrations.statements import bare_name, statements_of

__all__ = ["extensions_of", "roles_made", "roles_of", "tables_of"]

NOBODY = frozenset({"public", "current_user", "current_role", "session_user", "group"})
ENDS = frozenset({"with", "granted", "cascade", "restrict", "using"})
LENIENT = frozenset({"if", "exists", "not", "only"})


def extensions_of(sql: str) -> set[str]:
    """Return the extensions that `sql` makes."""
    return {bare_name(_first(words[2:])) for words in statements_of(sql) if words[:2] == ["create", "extension"]}


def roles_made(sql: str) -> set[str]:
    """Return the roles that `sql` makes."""
    return {
        bare_name(words[2]) for words in statements_of(sql) if words[:2] in (["create", "role"], ["create", "user"])
    }


def roles_of(sql: str) -> set[str]:
    """Return the roles to whom `sql` gives something, or from whom it takes something."""
    named: set[str] = set()
    for words in statements_of(sql):
        if words[:1] in (["grant"], ["revoke"]) or words[:2] == ["create", "policy"]:
            named |= set(_after(words, "from" if words[0] == "revoke" else "to"))
        elif words[:3] == ["alter", "default", "privileges"]:
            named |= set(_after(words, "from" if "revoke" in words else "to"))
        elif words[-3:-1] == ["owner", "to"]:
            named |= {bare_name(words[-1])}
    return named - NOBODY


def tables_of(sql: str) -> set[str]:
    """Return the tables, as `sql` spells them, whose owner alone may do what it does to them."""
    found: set[str] = set()
    for words in statements_of(sql):
        if words[:2] in (["alter", "table"], ["drop", "table"]):
            found.add(_whole(words, 2))
        elif words[:1] == ["create"] and "index" in words[1:3] and "on" in words:
            found.add(_whole(words, words.index("on") + 1))
    return found - {""}


def _after(words: Sequence[str], word: str) -> Iterator[str]:
    """Yield the names in the list after the last `word`, which in a name's place is none."""
    start = max((index for index, one in enumerate(words) if one == word), default=len(words))
    for one in words[start + 1 :]:
        if one in ENDS:
            return
        if one != ",":
            yield bare_name(one)


def _first(words: Sequence[str]) -> str:
    return next((word for word in words if word not in LENIENT), "")


def _whole(words: Sequence[str], start: int) -> str:
    """Return the name at `start`, with its schema."""
    while words[start : start + 1] and words[start] in LENIENT:
        start += 1
    end = start + 1
    while words[end : end + 1] == ["."]:
        end += 2
    return "".join(words[start:end])
