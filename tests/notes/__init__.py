"""The domain of the tests: notes. Whatever the service is about, the pipeline and the core are tested on this.

It has one route of each kind: a row, a list, an answer from the cache, a write with an `Idempotency-Key`, and a write
whose name the caller chooses, outside of /api. Its table and paths are the tests' own, so that it can stand beside any
other domain: `replace_domain` leaves the settings, the middleware, the lifespan and the migrations that are there.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

__all__ = ["NOTES", "SUMMARY", "TABLES", "replace_domain", "replace_module", "replace_requests"]

HERE = Path(__file__).parent
NOTES, SUMMARY = "/api/v1/testing-notes", "/api/v1/testing-summary"
TABLES = (HERE / "tables.sql").read_text(encoding="utf-8")
MIGRATION = '''"""the tests' notes"""

from __future__ import annotations

from alembic import op

revision = "{revision}"
down_revision = {before!r}
contract_after: str | None = None


def upgrade() -> None:
    """Make the table of notes."""
    op.execute("""
{tables}    """)
'''


def replace_module(root: Path) -> None:
    """Let the service in `root` take its domain from here."""
    shutil.copy(HERE / "domain.py", root / "backend/domain.py")


def replace_domain(root: Path) -> None:
    """Give the project in `root` this domain: its module, a migration after the newest, and its requests."""
    replace_module(root)
    folder = root / "backend/migrations/versions"
    before = max((path.name[:4] for path in folder.glob("[0-9]*.py")), default=None)
    revision = f"{int(before or 0) + 1:04}"
    text = MIGRATION.format(revision=revision, before=before, tables=TABLES)
    (folder / f"{revision}_testing_notes.py").write_text(text, encoding="utf-8")
    replace_requests(root, (HERE / "requests.toml").read_text(encoding="utf-8"))


def replace_requests(root: Path, requests: str) -> None:
    """Write `requests` in the place of all tables of pyproject.toml that declare or name requests."""
    kept, theirs = [], False
    for line in (root / "pyproject.toml").read_text(encoding="utf-8").splitlines():
        theirs = bool(re.match(r"\[+tool\.slipway\.(requests|bench)\b", line)) if line.startswith("[") else theirs
        kept += [] if theirs else [line]
    (root / "pyproject.toml").write_text("\n".join([*kept, requests]), encoding="utf-8")
