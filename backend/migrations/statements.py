"""The meaning of SQL apart from its looks: its tokens without layout, and which statements throw rows away.

The lexical rules are PostgreSQL's: https://www.postgresql.org/docs/18/sql-syntax-lexical.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Loss", "Write", "arrivals", "bare_name", "canonical", "losses", "statements_of", "writes"]

TOKEN = re.compile(
    r"""
      (?P<space> \s+ | --[^\n]* )
    | (?P<text> e'(?:[^'\\]|\\.|'')*' | (?:u&|[bxn])?'(?:[^']|'')*' )
    | (?P<body> \$([a-z_\x80-\uffff][\w]*|)\$ .*? \$\4\$ )
    | (?P<name> (?:u&)?"(?:[^"]|"")*" )
    | (?P<word> [a-z_\x80-\uffff][\w$]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
PUNCTUATION = frozenset("(),;")
DROPS_ROWS = ("table", "foreign table", "materialized view", "schema")
DROPS_DEPENDENTS = ("type", "domain", "extension", "function", "sequence", "view")  # with CASCADE: columns too
IF_NOT_EXISTS = ["if", "not", "exists"]
ALWAYS = frozenset({"true", "(true)", "1=1", "(1=1)"})
NO_TABLE = frozenset({"set", "of", "to", "or", "on"})  # after UPDATE in a foreign key, a trigger, a rule
# What may precede a statement: another one, or the keywords of a DO block.
OPENERS = frozenset({None, ";", "(", "begin", "then", "else", "loop"})


@dataclass(frozen=True)
class Token:
    """One token; `text` is folded to lower case where PostgreSQL folds it, and `said` is as written."""

    kind: str
    text: str
    said: str


@dataclass(frozen=True)
class Loss:
    """A statement that throws rows away. `names`: the tables (or schemas) as SQL spells them; none if unknown."""

    what: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Write:
    """A statement that changes rows which are there, and so locks them until its transaction ends."""

    what: str
    table: str
    sql: str


def canonical(sql: str) -> str:
    """Return `sql` without comments and layout: equal for two texts that PostgreSQL reads alike."""
    parts: list[str] = []
    gap = False
    for token in _tokens(sql):
        if token.kind == "space":
            gap = True
            continue
        if gap and parts and token.text not in PUNCTUATION and parts[-1] not in PUNCTUATION:
            parts.append(" ")
        parts.append(token.text)
        gap = False
    return "".join(parts).strip(";")


def losses(sql: str) -> list[Loss]:
    """Return the statements of `sql` that throw rows away, including those in DO blocks."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    return list(_losses(tokens, inside_do=False))


def arrivals(sql: str) -> tuple[set[str], set[str]]:
    """Return the names, without their schemas, of what `sql` creates, and of what it gives another name."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    created, renamed = set(), set()
    for index, token in enumerate(tokens):
        before = [one.text for one in tokens[max(0, index - 6) : index]]
        if token.text in ("table", "view") and "create" in before:
            start = index + 1 + (3 if [one.text for one in tokens[index + 1 : index + 4]] == IF_NOT_EXISTS else 0)
            created.add(bare_name(_name(tokens, start)[0]))
        elif before[-1:] == ["rename"] and token.text == "to":
            renamed.add(bare_name(_name(tokens, index + 1)[0]))
    return created, renamed


def statements_of(sql: str) -> Iterator[list[str]]:
    """Yield the words of each statement: folded as PostgreSQL does, without comments; a body in quotes is one word."""
    for tokens in _statements(sql):
        yield [token.text for token in tokens if token.kind != "space"]


def _statements(sql: str) -> Iterator[list[Token]]:
    """Yield the tokens of each statement, without the semicolon; a body in quotes is one token."""
    tokens: list[Token] = []
    for token in _tokens(f"{sql};"):
        if token.text != ";":
            tokens.append(token)
        elif any(one.kind != "space" for one in tokens):
            yield tokens
            tokens = []
        else:
            tokens = []


def writes(sql: str) -> list[Write]:
    """Return the statements of `sql` that change rows which are there."""
    found = []
    for tokens in _statements(sql):
        words = [token for token in tokens if token.kind != "space"]
        for verb in (["update"], ["delete", "from"], ["merge", "into"]):
            if [token.text for token in words[: len(verb)]] == verb:
                name, _ = _name(words, len(verb))
                whole = "".join(token.said for token in tokens).strip()
                found.append(Write(f"{' '.join(verb).upper()} {name}", name, whole))
    return found


def bare_name(name: str) -> str:
    """Return a name as PostgreSQL folds it, without its schema."""
    last = [token for token in _tokens(name) if token.kind in ("word", "name")][-1:]
    return last[0].text.strip('"') if last else ""


def _tokens(sql: str) -> Iterator[Token]:
    position = 0
    while position < len(sql):
        if sql.startswith("/*", position):
            position = _end_of_comment(sql, position)
            yield Token("space", " ", " ")
            continue
        match = TOKEN.match(sql, position)
        assert match is not None  # the last alternative takes anything
        position, kind, said = match.end(), str(match.lastgroup), match[0]
        yield Token(kind, said.lower() if kind == "word" else said, said)


def _end_of_comment(sql: str, start: int) -> int:
    """Return where the comment at `start` ends; PostgreSQL's comments nest."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", sql[start:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return start + mark.end()
    return len(sql)


def _losses(tokens: Sequence[Token], *, inside_do: bool) -> Iterator[Loss]:
    for index, token in enumerate(tokens):
        words = [one.text for one in tokens[index : index + 3]] + ["", ""]
        before = tokens[index - 1].text if index else None
        if token.kind in ("body", "text") and (inside_do or _is_do(tokens, index)):
            inner = [one for one in _tokens(_inside(token.said)) if one.kind != "space"]
            yield from _losses(inner, inside_do=True)
        elif words[:2] == ["delete", "from"]:
            yield from _without_condition("DELETE FROM", tokens, index + 2)
        elif words[0] == "update" and words[1] not in NO_TABLE:
            yield from _without_condition("UPDATE", tokens, index + 1, needs="set")
        elif words[:2] == ["merge", "into"] and "delete" in _rest(tokens, index):
            name, _ = _name(tokens, index + 2)
            yield _loss(f"MERGE INTO {name} … DELETE", name)
        elif words[0] == "truncate" and before in OPENERS:
            loss = _named("TRUNCATE", tokens, index + 1)
            # CASCADE empties each table that refers to these, too: which, only the database knows.
            yield Loss(f"{loss.what} CASCADE", ()) if "cascade" in _rest(tokens, index) else loss
        elif words[0] == "drop" and before in OPENERS:
            yield from _dropped(tokens, index)


def _is_do(tokens: Sequence[Token], index: int) -> bool:
    """Return whether the text at `index` is the code of a DO block, which runs now: `DO [LANGUAGE x] $$ … $$`."""
    before = [one.text for one in tokens[max(0, index - 3) : index]]
    return before[-1:] == ["do"] or (before[-3:-1] == ["do", "language"])


def _inside(text: str) -> str:
    if text.startswith("$"):
        tag = text[: text.index("$", 1) + 1]
        return text[len(tag) : -len(tag)]
    return text.partition("'")[2][:-1].replace("''", "'")


def _without_condition(what: str, tokens: Sequence[Token], index: int, needs: str = "") -> Iterator[Loss]:
    """Yield the statement on the table at `index` if it has no WHERE. `needs`: a word that it must contain."""
    name, _ = _name(tokens, index)
    rest = _rest(tokens, index)
    if needs and needs not in rest:
        return  # FOR UPDATE, ON UPDATE, GRANT UPDATE
    if "where" not in rest or _condition(tokens, index) in ALWAYS:
        yield _loss(f"{what} {name} without WHERE", name)


def _loss(what: str, *names: str) -> Loss:
    """Return a loss; a name that is put together at run time is empty here, so nobody can say what it is of."""
    return Loss(what, names if all(names) else ())


def _condition(tokens: Sequence[Token], index: int) -> str:
    """Return the condition of the statement at `index`, without the spaces in it."""
    depth, parts, inside = 0, [], False
    for token in tokens[index:]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth < 0 or (depth == 0 and token.text == ";"):
            break
        if inside:
            parts.append(token.text)
        inside = inside or (depth == 0 and token.text == "where")
    return "".join(parts)


def _rest(tokens: Sequence[Token], index: int) -> list[str]:
    """Return the words from `index` to the end of the statement, without those in parentheses of their own."""
    depth, words = 0, []
    for token in tokens[index:]:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth < 0 or (depth == 0 and token.text == ";"):
            break
        if depth == 0 and token.text != ")":
            words.append(token.text)
    return words


def _dropped(tokens: Sequence[Token], index: int) -> Iterator[Loss]:
    words = [one.text for one in tokens[index + 1 : index + 3]]
    if words[:1] == ["owned"]:
        yield Loss("DROP OWNED", ())
    for kind in (*DROPS_ROWS, *DROPS_DEPENDENTS):
        length = len(kind.split())
        if words[:length] != kind.split():
            continue
        if kind in DROPS_ROWS:
            lenient = tokens[index + 1 + length : index + 3 + length]
            exists = " IF EXISTS" if [one.text for one in lenient] == ["if", "exists"] else ""
            yield _named(f"DROP {kind.upper()}{exists}", tokens, index + 1 + length)
        elif "cascade" in _rest(tokens, index):
            name, _ = _name(tokens, index + 1 + length)
            yield Loss(f"DROP {kind.upper()} {name} CASCADE", ())


def _named(what: str, tokens: Sequence[Token], index: int) -> Loss:
    """Return the statement `what` with the list of names at `index`."""
    names, more = [], True
    while more:
        name, index = _name(tokens, index)
        names.append(name)
        if index < len(tokens) and tokens[index].text == "*":
            index += 1
        more = index < len(tokens) and tokens[index].text == ","
        index += 1
    return _loss(f"{what} {', '.join(names)}", *names)


def _name(tokens: Sequence[Token], index: int) -> tuple[str, int]:
    """Return the name at `index`, with its schema, and the index of the next token."""
    while index < len(tokens) and tokens[index].text in ("table", "only", "if", "exists", "concurrently"):
        index += 1
    if index < len(tokens) and tokens[index].text == "(" and tokens[index - 1].text == "only":
        index += 1
    parts = []
    while index < len(tokens) and tokens[index].kind in ("word", "name"):
        parts.append(tokens[index].said)
        index += 1
        if index < len(tokens) and tokens[index].text == ".":
            index += 1
        else:
            break
    return ".".join(parts), index
