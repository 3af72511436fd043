"""One judge of migrations: the files are judged as `check` judges what a database lacks."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.releases.migrations import repository_problems
from tests.backend.migrations.conftest import Run, add
from tests.backend.migrations.judging import checked
from tests.pages import blocks
from tests.services import ROOT

TABLE = 'op.execute("CREATE TABLE places (name text)")'
[EXCEPTION] = [
    textwrap.indent(block.text, "    ").strip()
    for block in blocks(ROOT / "docs/3-migrations.md")
    if "squawk-ignore" in block.text
]
# Each is a migration's SQL, and words of the line that refuses it.
REFUSED = {
    "CREATE INDEX notes_idx ON board (notes)": "require-concurrent-index-creation",
    "ALTER TABLE board ADD COLUMN z bigint NOT NULL": "adding-required-field",
    "LOCK TABLE board": "locks a table outright",
    "ALTER TABLE board DROP COLUMN notes": 'contract_after = "NNNN"',
    "ALTER TABLE board RENAME TO other": 'contract_after = "NNNN"',
    "TRUNCATE board CASCADE": 'destroys = "why"',
    "DROP TABLE board": 'contract_after = "NNNN"',
}


def test_the_migrations_of_the_service_are_such_as_a_deploy_accepts() -> None:
    """Yours, too: what is refused here is refused by `check`, and what it has accepted is green here."""
    problems = repository_problems(ROOT)
    assert not problems, "\n".join(problems)


def test_what_check_accepts_is_accepted(root: Path, code: Path, run: Run) -> None:
    """Taste is nobody's matter; what a migration says of itself counts, and so does a comment for squawk."""
    add(code, 2, 'op.execute("ALTER TABLE board ADD COLUMN weight_g integer, ADD COLUMN tag varchar(9)")')
    add(code, 3, TABLE)
    add(code, 4, EXCEPTION)
    add(code, 5, 'op.execute("TRUNCATE board CASCADE")', destroys="they are copies")
    add(code, 6, 'op.execute("ALTER TABLE board DROP COLUMN notes")', contract_after="0003")
    add(code, 7, 'op.execute("DROP TABLE board")', contract_after="0006")
    add(code, 8, 'op.get_bind().exec_driver_sql("SELECT 1")')
    run("upgrade", "--to", "0001")
    assert (repository_problems(root), checked(run)) == ([], [])
    assert run("upgrade").returncode == 0


def test_what_the_files_are_refused_for_is_refused_by_check(root: Path, code: Path, run: Run) -> None:
    """In the same words, before anything is applied."""
    for number, statement in enumerate(REFUSED, 2):
        add(code, number, f'op.execute("{statement}")')
    without = EXCEPTION.replace("squawk-ignore", "was")
    assert without != EXCEPTION
    add(code, len(REFUSED) + 2, without)
    run("upgrade", "--to", "0001")
    problems = repository_problems(root)
    assert checked(run) == problems
    for number, words in enumerate([*REFUSED.values(), "require-concurrent-index-creation"], 2):
        lines = [line for line in problems if line.startswith(f"migration {number:04} (step {number}) ")]
        assert words in " ".join(lines), problems


def test_two_files_of_one_number_are_both_named(root: Path, code: Path) -> None:
    """With the command that moves one of them: your own, where the other came with the template."""
    (code / "0001_parcels.py").write_text((code / "0001_step.py").read_text())
    [problem] = repository_problems(root)
    assert "0001_parcels.py and 0001_step.py have the same revision 0001" in problem
    assert "`nox -s migration -- --renumber 0001_step.py`" in problem


def test_a_file_that_cannot_be_loaded_is_one_line(root: Path, code: Path) -> None:
    """It is Python, and there may be anything in it."""
    add(code, 2, 'op.execute("SELECT 1")')
    path = code / "0002_step.py"
    path.write_text(f"import no_such_module\n{path.read_text()}")
    with pytest.raises(SlipwayError, match=r"^the migrations cannot be loaded: .*no_such_module.*$"):
        repository_problems(root)
