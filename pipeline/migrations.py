"""Which migrations may run while the old release serves: expand first, contract when no release needs it any more."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DeployFailed, SlipwayError
from pipeline.model import Migration

__all__ = [
    "RetainedRelease",
    "migration_hashes",
    "migration_problems",
    "must_not_rewrite_history",
    "pending_migrations",
    "required_revision",
]

# squawk's rules (https://squawkhq.com/docs/rules) on what takes something away from a release that still runs.
CONTRACTING = frozenset(
    {
        "ban-drop-column",
        "ban-drop-table",
        "ban-drop-database",
        "ban-truncate-cascade",
        "renaming-column",
        "renaming-table",
        "changing-column-type",
    }
)
# Not a danger to a running release: taste, and timeouts, which the migration runner sets for each statement.
HARMLESS = (
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-robust-stmts",
    "prefer-text-field",
    "prefer-timestamptz",
    "require-lock-timeout",
    "require-statement-timeout",
    "ban-drop-not-null",
    "require-timeout-settings",
)
EXPLICIT_LOCK = re.compile(r"^\s*lock\s+(table\s+)?\w", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class RetainedRelease:
    """A release that runs or that one can roll back to, and the schema revision that its code needs."""

    name: str
    revision: str


def pending_migrations(
    wanted: str,
    current: str,
    *,
    mine: Mapping[str, str],
    serving: Iterable[Mapping[str, str]],
    plan: Callable[[], str],
    say: Callable[[str], None],
) -> list[Migration]:
    """The migrations that a database at CURRENT lacks of a release that needs WANTED. `none`: it was never migrated, or
    nobody can say.

    MINE and each of SERVING: `migration_hashes` of the release, and of those that run. PLAN gives the migrations after
    CURRENT as JSON. Raises `DeployFailed` where an applied one was edited.
    """
    if current == "none":
        say("no migrated database answers: each migration counts as new")
    else:
        for theirs in serving:
            must_not_rewrite_history(mine, theirs, current)
        if current >= wanted:
            return []
    keys = ("revision", "message", "contract_after", "sql")
    return [Migration(**{key: one[key] for key in keys}) for one in json.loads(plan())]


def migration_problems(pending: Iterable[Migration], retained: Iterable[RetainedRelease]) -> list[str]:
    """Why these migrations must not run now, one line each; empty when they may."""
    retained = list(retained)
    problems = []
    for migration in pending:
        where = f"migration {migration.revision} ({migration.message})"
        for rule, line, message in _lint(migration.sql):
            if rule not in CONTRACTING:
                problems.append(
                    f"{where} blocks the running release: {message} (squawk {rule}, line {line} of its SQL)"
                )
            elif migration.contract_after is None:
                problems.append(
                    f"{where} takes away what the running release may need: {message} (squawk {rule}). Ship a release"
                    ' that no longer uses it, then say so in the migration: `contract_after = "NNNN"`, the'
                    " first revision whose release no longer uses it"
                )
        if EXPLICIT_LOCK.search(migration.sql):
            problems.append(
                f"{where} blocks the running release: it locks a table outright; take the LOCK statement out"
            )
        problems += _contract_problems(where, migration.contract_after, retained)
    return problems


def _contract_problems(where: str, contract_after: str | None, retained: list[RetainedRelease]) -> list[str]:
    if contract_after is None:
        return []
    needing = [release.name for release in retained if release.revision < contract_after]
    if not needing:
        return []
    return [
        (
            f"{where} drops what release {', '.join(needing)} still needs (older than revision {contract_after})"
            " and which is kept to roll back to: ship it after newer releases have replaced that one in"
            " `nox -s releases`, or lower `retain` in [tool.slipway]"
        )
    ]


def _lint(sql: str) -> list[tuple[str, int, str]]:
    """Squawk's findings on SQL: rule, line (from 1), message."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migration.sql"
        path.write_text(sql, encoding="utf-8")
        excluded = [f"--exclude={','.join(HARMLESS)}"]
        done = subprocess.run(
            [Path(sys.executable).parent / "squawk", "--reporter", "json", "--assume-in-transaction", *excluded, path],
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise SlipwayError(
            f"squawk could not read the migration's SQL: {(done.stderr or done.stdout).strip()}"
        ) from None
    return [(one["rule_name"], one["line"] + 1, f"{one['message']} {one.get('help') or ''}".strip()) for one in found]


def required_revision(folder: Path) -> str | None:
    """The schema revision that the code in FOLDER needs: the highest of its migrations, which are numbered."""
    files = sorted(path.name for path in folder.glob("*/migrations/versions/[0-9]*_*.py"))
    return files[-1].split("_")[0] if files else None


def migration_hashes(folder: Path) -> dict[str, str]:
    """Revision → hash of its code, of the migrations in FOLDER. Comments and layout are no part of what one does."""
    paths = folder.glob("*/migrations/versions/[0-9]*_*.py")
    return {
        path.name.split("_")[0]: hashlib.sha256(ast.dump(ast.parse(path.read_bytes())).encode()).hexdigest()[:16]
        for path in paths
    }


def must_not_rewrite_history(new: Mapping[str, str], old: Mapping[str, str], applied: str) -> None:
    """Raise `DeployFailed` where a migration up to APPLIED has other code in NEW than in OLD (see migration_hashes)."""
    edited = [
        revision for revision, code in sorted(new.items()) if revision <= applied and old.get(revision, code) != code
    ]
    if edited:
        raise DeployFailed(
            f"migration {edited[0]} is applied already and would not run again: take its change back,"
            " and write it as a new one (`nox -s migration -- MESSAGE`)"
        )
