"""The exceptions that a migration makes for itself: one line each, with its rule and its reason.

    -- squawk-ignore require-concurrent-index-creation: a dozen rows, read once an hour

squawk's own comments have no reason and may switch all of it off, so it gets to see only what is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["LARGE_WRITE", "Exceptions", "read_exceptions"]

LARGE_WRITE = "large-write"  # the one rule of our own
COMMENT = re.compile(r"(?:--|/\*)[ \t]*squawk-(?P<kind>[a-z-]+)[ \t]*(?P<said>[^\n]*)", re.IGNORECASE)
SAID = re.compile(r"(?P<rules>[a-z-]+(?:[ \t]*,[ \t]*[a-z-]+)*)[ \t]*:[ \t]*(?P<reason>\S.*)")
FORM = "`-- squawk-ignore RULE: why it does no harm`, on a line above the statement"


@dataclass(frozen=True)
class Exceptions:
    """What a migration says of itself. `reasons`: rule → reason; `sql`: its text, with comments that squawk takes."""

    reasons: dict[str, str]
    problems: list[str]
    sql: str


def read_exceptions(sql: str, never: frozenset[str] | tuple[str, ...] = ()) -> Exceptions:
    """Read the exceptions of a migration. For rules that begin with one of `never` there is none."""
    reasons: dict[str, str] = {}
    problems: list[str] = []

    def read(match: re.Match[str]) -> str:
        kind, text = match["kind"].lower(), match["said"].removesuffix("*/").strip()
        said = SAID.fullmatch(text)
        if kind != "ignore":
            problems.append(f"has the comment `squawk-{kind}`, which would switch the judge off: name the rule, {FORM}")
            return "--"
        if not said:
            problems.append(f"has the exception `{text or 'squawk-ignore'}` without a reason: write {FORM}")
            return "--"
        rules = [rule.strip() for rule in said["rules"].split(",")]
        for rule in rules:
            if rule.startswith(tuple(never)):
                problems.append(f"has an exception to {rule}, which has none: use `contract_after`")
            reasons[rule] = said["reason"]
        known = ", ".join(rule for rule in rules if rule != LARGE_WRITE and not rule.startswith(tuple(never)))
        return f"-- squawk-ignore {known}" if known else "--"

    return Exceptions(reasons, problems, COMMENT.sub(read, sql))
