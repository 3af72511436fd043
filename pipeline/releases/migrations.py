"""The judge of migrations: which may run while the old release serves.

`nox -s lint` and `nox -s test` ask it about the files (`repository_problems`), `check` about what a database lacks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError
from pipeline.releases.exceptions import LARGE_WRITE, read_exceptions
from pipeline.releases.migration_files import migration_file_problems
from pipeline.releases.model import Loss, Migration, Write
from pipeline.releases.schema import plan_repository

__all__ = ["RetainedRelease", "migration_line", "migration_problems", "repository_problems", "required_revision"]

# How those of squawk's rules (https://squawkhq.com/docs/rules) begin that are against taking something away from a
# release that still runs.
CONTRACTING = ("ban-drop-", "renaming-", "ban-set-schema", "changing-column-type")
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
    "require-enum-value-ordering",
    "ban-truncate-cascade",  # refused with the rows that go: see `_loss_problems`
)
# Of an UPDATE of rows of 100 bytes with two indexes, on a small server. A request that waits 2 s for a row fails.
ROWS_A_SECOND = 30_000
LARGE_ROWS = 60_000
MANY_ROWS = 1_000
COMMENT = re.compile(r"--[^\n]*")
# Where a statement begins, also in a DO block: a column may be called `lock`.
EXPLICIT_LOCK = re.compile(r"(?:\A|;|\b(?:begin|then|else|loop)\b)\s*lock\s+(?:table\s+)?\w", re.IGNORECASE)


@dataclass(frozen=True)
class RetainedRelease:
    """A release that runs or that can be rolled back to, and the schema revision that its code needs."""

    name: str
    revision: str


def repository_problems(root: Path) -> list[str]:
    """Return what a deploy would refuse of the migrations of the repository at `root`, one line each with its fix.

    `check` alone refuses for what only the real database knows: rows, kept releases.
    """
    problems = migration_file_problems(root)
    if problems or required_revision(root) is None:
        return problems
    return migration_problems(plan_repository(root))


def migration_problems(migrations: Iterable[Migration], retained: Iterable[RetainedRelease] = ()) -> list[str]:
    """Return why the `migrations` must not run beside the `retained` releases, one line each; empty where they may."""
    retained = list(retained)
    problems = []
    for migration in migrations:
        where = f"migration {migration.revision} ({migration.message})"
        said = read_exceptions(migration.sql, CONTRACTING)
        problems += [f"{where} {problem}" for problem in said.problems]
        for rule, line, message in _lint(said.sql) if migration.sql else ():
            if rule in migration.proven:
                continue
            if rule == "unused-ignore":
                problems.append(f"{where} has an exception to a rule that squawk does not have: {message}")
            elif not rule.startswith(CONTRACTING):
                problems.append(
                    f"{where} blocks the running release: {message} (squawk {rule}, line {line} of its SQL)"
                )
            elif migration.contract_after is None:
                problems.append(
                    f"{where} takes away what the running release may need: {message} (squawk {rule}). Ship a release"
                    ' that no longer uses it, then say so in the migration: `contract_after = "NNNN"`, the'
                    " first revision whose release no longer uses it"
                )
        if EXPLICIT_LOCK.search(COMMENT.sub("", migration.sql)):
            problems.append(
                f"{where} blocks the running release: it locks a table outright; take the LOCK statement out"
            )
        problems += _loss_problems(where, migration)
        problems += _write_problems(where, migration, said.reasons)
        problems += _contract_problems(where, migration.contract_after, retained)
    return problems


def _loss_problems(where: str, migration: Migration) -> Iterator[str]:
    """Yield a line for each statement that throws rows away, where the migration does not say why it may."""
    for loss in migration.losses if not migration.destroys else ():
        if loss.rows != 0:
            yield (
                f"{where} destroys {_count_rows(loss)}: {loss.what}. Where they may go, say why in the migration:"
                ' `destroys = "why"`; it cannot be undone by a rollback'
            )


def _write_problems(where: str, migration: Migration, reasons: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each statement that locks so many rows that requests which write one of them fail."""
    for write in migration.writes if LARGE_WRITE not in reasons else ():
        if (write.rows or 0) >= LARGE_ROWS:
            yield (
                f"{where} {_locks(write)}: requests that write one of them fail meanwhile. Do it in batches"
                " (docs/3-migrations.md, A large table); where nobody writes them, say so in its SQL:"
                f" `-- squawk-ignore {LARGE_WRITE}: why`"
            )


def _locks(write: Write) -> str:
    rows = write.rows or 0
    return f"locks about {rows:,} rows for about {max(1, rows // ROWS_A_SECOND):,} s ({write.what})"


def migration_line(migration: Migration) -> str:
    """Return what a plan says of a migration: rows that it locks or may destroy, and its exceptions."""
    line = f"migration {migration.revision}: {migration.message}"
    if not migration.sql:
        line += " (no SQL before it runs: only its rehearsal tries it)"
    for write in migration.writes:
        if (write.rows or 0) >= MANY_ROWS:
            line += f"; {_locks(write)}"
    for rule, reason in read_exceptions(migration.sql).reasons.items():
        line += f"; exception to {rule}: {reason}"
    for loss in migration.losses if migration.destroys else ():
        line += f"; destroys {_count_rows(loss)} ({loss.what}): {migration.destroys}"
    return line


def _count_rows(loss: Loss) -> str:
    """Return in words how many rows a loss has."""
    if loss.rows is None:
        return "rows that nobody can count"
    return f"{loss.rows:,} row{'' if loss.rows == 1 else 's'}"


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
    """Return squawk's findings on `sql`: rule, line (from 1), message."""
    with tempfile.TemporaryDirectory() as folder:
        path, configuration = Path(folder) / "migration.sql", Path(folder) / ".squawk.toml"
        path.write_text(sql, encoding="utf-8")
        configuration.touch()  # none of the folder that somebody happens to be in: each judgement is the same
        squawk = [str(Path(sys.executable).parent / "squawk"), "--reporter=json", f"--config={configuration}"]
        options = ["--assume-in-transaction", f"--exclude={','.join(HARMLESS)}"]
        done = subprocess.run([*squawk, *options, path], capture_output=True, text=True, check=False)
    try:
        findings = json.loads(done.stdout)
    except ValueError:
        raise SlipwayError(
            f"squawk could not read the migration's SQL: {(done.stderr or done.stdout).strip()}"
        ) from None
    return [
        (each["rule_name"], each["line"] + 1, f"{each['message']} {each.get('help') or ''}".strip())
        for each in findings
    ]


def required_revision(folder: Path) -> str | None:
    """Return the schema revision that the code in `folder` needs: the highest number of its migrations, if any."""
    files = sorted(path.name for path in folder.glob("*/migrations/versions/[0-9]*_*.py"))
    return files[-1].split("_")[0] if files else None
