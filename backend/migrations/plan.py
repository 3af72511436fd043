"""The migrations as they are in the source: their order, their SQL, their effects. Needs no database."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import textwrap
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from backend.migrations.proofs import Proofs
from backend.migrations.statements import Loss, Write, canonical, losses, writes

__all__ = [
    "HERE",
    "Planned",
    "UnknownRevision",
    "UnsoundMigrations",
    "alembic_config",
    "create",
    "plan",
    "render",
    "same_form",
]

HERE = Path(__file__).parent
FORM = "1"  # version of the checksums: another algorithm gets another number
# What a migration declares about itself and does not do to the database: in an applied one it may still change.
SAYINGS = frozenset(
    {"revision", "down_revision", "contract_after", "destroys", "transactional", "branch_labels", "depends_on"}
)
NEEDS_CONNECTION = frozenset({"get_bind", "get_context", "run_async"})
# Fields of Python's syntax tree that do not change what happens, or that some versions of Python lack.
UNSEEN = frozenset({"annotation", "returns", "type_comment", "type_params", "kind"})
TEMPLATE = '''"""{message}"""

from __future__ import annotations

from alembic import op

revision = "{revision}"
down_revision = {down_revision}
# Drops or renames something? Name the first revision whose release no longer uses it: contract_after = "0001".
contract_after: str | None = None
# Throws rows away? Say why they may go: destroys = "the drafts of before 2020, which nobody reads".
destroys: str | None = None
# CREATE INDEX CONCURRENTLY and its like: one such statement alone, and `transactional = False`.
transactional = True


def upgrade() -> None:
    """Say what it does; one statement for each `op.execute`."""
    # A colon before a word would be a parameter: write it with a backslash before it.
    op.execute("""
        <the SQL>
    """)
'''


class UnknownRevision(Exception):
    """A revision that is not among the migrations. The message lists those that are."""


class UnsoundMigrations(Exception):
    """Files that are not a single chain. The message says which."""


@dataclass(frozen=True)
class Planned:
    """One migration.

    `contract_after`: no release that needs what this drops may be older than that revision. `destroys`: why the rows
    of `losses` may go. `checksum` covers what it does, not how it looks. `sql` is empty where it is Python code, which
    cannot be rendered before it runs. `proven`: rules of the linter of which each case in it is known to be harmless.
    `writes` are the statements that change rows in its one transaction.
    """

    revision: str
    message: str
    contract_after: str | None
    destroys: str | None
    checksum: str
    sql: str
    losses: tuple[Loss, ...]
    proven: tuple[str, ...] = ()
    writes: tuple[Write, ...] = ()


def alembic_config() -> Config:
    """Return Alembic's configuration, which needs no file."""
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def plan(after: str | None, to: str | None) -> list[Planned]:
    """Return the migrations after `after` (None: from the first) up to `to` (None: to the last).

    Raise `UnknownRevision` where one of the two is not among them.
    """
    known = scripts()
    names = [script.revision for script in known]
    for name in (after, to):
        if name is not None and name not in names:
            raise UnknownRevision(f"there is no revision {name}; there are {', '.join(names) or 'none'}")
    first = names.index(after) + 1 if after is not None else 0
    last = names.index(to) + 1 if to is not None else len(names)
    proofs = Proofs()  # of all before, too
    return [_planned(script, proofs) for script in known[:last]][first:]


def _planned(script: Script, proofs: Proofs) -> Planned:
    tree = ast.parse(Path(script.path).read_bytes())
    statements = _statements(script, tree)
    if statements is None:
        # As far as can be known before it runs, its SQL is among its string constants.
        texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        lost = [loss for text in texts if isinstance(text, str) for loss in losses(text)]
    else:
        lost = losses(";\n".join(statements))  # as one text: `render` also cuts where a body has an empty line
    transactional = getattr(script.module, "transactional", True)
    sql = "\n\n".join(f"{statement};" for statement in statements or ())
    return Planned(
        revision=script.revision,
        message=script.doc or "",
        contract_after=getattr(script.module, "contract_after", None),
        destroys=getattr(script.module, "destroys", None),
        checksum=_checksum(tree, statements, transactional=transactional),
        sql=sql,
        losses=tuple(lost),
        proven=proofs.read(sql),
        writes=tuple(writes(sql)) if transactional else (),
    )


def _statements(script: Script, tree: ast.Module) -> list[str] | None:
    """Return the statements of a migration, or None where it takes a connection to know them."""
    if any(isinstance(node, ast.Attribute) and node.attr in NEEDS_CONNECTION for node in ast.walk(tree)):
        return None
    try:
        return render(script)
    except Exception:  # noqa: BLE001 - a migration's own code may raise anything without a database
        return None


def same_form(recorded: str | None, mine: str) -> bool:
    """Return whether a migration was applied in the form that it has now, as far as can be told.

    One equal part is enough: SQL that is put together anew each time (a time, a random id) is told by its code, and
    code that was written otherwise by its SQL.
    """
    theirs, ours = (recorded or "").split(":"), mine.split(":")
    return theirs[0] != ours[0] or any(part and part == other for part, other in zip(theirs[1:], ours[1:], strict=True))


def _checksum(tree: ast.Module, statements: list[str] | None, *, transactional: bool) -> str:
    """Return a checksum of what a migration does, `FORM:SQL:CODE`; without SQL where it takes a connection."""
    sql = "" if statements is None else _digest([transactional, canonical(";\n".join(statements))])
    return f"{FORM}:{sql}:{_digest([transactional, _shape(tree.body)])}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:24]


def _shape(node: Any) -> Any:
    """Return what `node` of a syntax tree does, as JSON: without docstrings, annotations and `SAYINGS`."""
    if isinstance(node, list):
        return [_shape(one) for one in node if not _is_saying(one)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in UNSEEN)
    return [type(node).__name__, *([name, _shape(value)] for name, value in fields if value not in (None, []))]


def _is_saying(node: Any) -> bool:
    """Return whether a statement only declares something: a docstring, or one of `SAYINGS`."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    named = [target.id for target in targets if isinstance(target, ast.Name)]
    return isinstance(node, ast.Assign | ast.AnnAssign) and bool(named) and set(named) <= SAYINGS


def scripts() -> list[Script]:
    """Return the migrations, oldest first. Raise `UnsoundMigrations` where they are not a single chain."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Alembic only warns of two files with one revision
        try:
            folder = ScriptDirectory.from_config(alembic_config())
            heads, known = folder.get_heads(), list(folder.walk_revisions())[::-1]
        except (UserWarning, RevisionError, CommandError) as error:
            raise UnsoundMigrations(f"the migrations are not a single chain: {error}{_twins()}") from error
    if len(heads) > 1:
        raise UnsoundMigrations(f"the migrations are not a single chain: they have the heads {', '.join(heads)}")
    return known


def _twins() -> str:
    """Name the files that have a number in common, and the way out; an empty string where none have."""
    # By their names, because Alembic tells the number alone.
    names = sorted(path.name for path in (HERE / "versions").glob("[0-9]*_*.py"))
    numbers = [name.partition("_")[0] for name in names]
    twins = [name for name, number in zip(names, numbers, strict=True) if numbers.count(number) > 1]
    return f": {', '.join(twins)}: `nox -s migration -- --renumber {twins[-1]}`" if twins else ""


def render(script: Script) -> list[str]:
    """Return the statements of `script`."""
    buffer = io.StringIO()
    offline = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer})
    with Operations.context(offline):
        script.module.upgrade()
    # Alembic ends each statement with a semicolon and an empty line.
    statements = (text.strip() for text in re.split(r";\s*\n\s*\n", buffer.getvalue()))
    return [textwrap.dedent(f"        {text}").strip() for text in statements if text]


def create(message: str) -> Path:
    """Write an empty migration with the next number and return its path."""
    numbers = [script.revision for script in scripts()]
    down = numbers[-1] if numbers else None
    revision = f"{int(down or 0) + 1:04d}"
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:50]
    path = HERE / "versions" / f"{revision}_{slug or 'migration'}.py"
    text = TEMPLATE.format(
        message=message.replace('"', "'"), revision=revision, down_revision=f'"{down}"' if down else None
    )
    path.write_text(text, encoding="utf-8")
    return path
