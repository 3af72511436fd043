"""The migrations as they are in the source: their order, their SQL. Needs no database."""

from __future__ import annotations

import io
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory

__all__ = ["HERE", "Planned", "UnknownRevision", "alembic_config", "create", "plan", "render"]

HERE = Path(__file__).parent
TEMPLATE = '''"""{message}"""

from __future__ import annotations

from alembic import op

revision = "{revision}"
down_revision = {down_revision}
# Drops or renames something? Name the revision after which no release needs it: contract_after = "0001".
contract_after: str | None = None
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
    """A revision that is not among the migrations. The message says which there are."""


@dataclass(frozen=True)
class Planned:
    """One migration. `contract_after`: no release that needs what this drops may be older than that revision."""

    revision: str
    message: str
    contract_after: str | None
    sql: str


def alembic_config() -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def plan(after: str | None, to: str | None) -> list[Planned]:
    """The migrations after AFTER (None: from the first) up to TO (None: to the last). Raises UnknownRevision."""
    known = scripts()
    names = [script.revision for script in known]
    for name in (after, to):
        if name is not None and name not in names:
            raise UnknownRevision(f"there is no revision {name}; there are {', '.join(names) or 'none'}")
    first = names.index(after) + 1 if after is not None else 0
    last = names.index(to) + 1 if to is not None else len(names)
    return [
        Planned(
            script.revision,
            script.doc or "",
            getattr(script.module, "contract_after", None),
            "\n\n".join(f"{statement};" for statement in render(script)),
        )
        for script in known[first:last]
    ]


def scripts() -> list[Script]:
    """The migrations, oldest first."""
    return list(ScriptDirectory.from_config(alembic_config()).walk_revisions())[::-1]


def render(script: Script) -> list[str]:
    """The statements of SCRIPT."""
    buffer = io.StringIO()
    offline = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": buffer})
    with Operations.context(offline):
        script.module.upgrade()
    # Alembic ends each statement with a semicolon and an empty line.
    statements = (text.strip() for text in re.split(r";\s*\n\s*\n", buffer.getvalue()))
    return [textwrap.dedent(f"        {text}").strip() for text in statements if text]


def create(message: str) -> Path:
    """Write an empty migration with the next number, and return its path."""
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
