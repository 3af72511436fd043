"""Migration files that two branches have made, and what moves one of them to the end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from pipeline.releases.migration_files import migration_file_problems
from tests.pipeline.releases.chains import FIRST, FOLDER, Files, chain, read, text, write
from tests.pipeline.test_main import pipeline

ROOT = Path(__file__).parents[3]
RENUMBER = "renumber the one that was not deployed, for example `nox -s migration -- --renumber"
# The lines are without the folder that they begin with.
UNSOUND: dict[str, tuple[Files, list[str]]] = {
    "two of one number": (
        chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0003_c="0002"),
        [f": 0002_a.py and 0002_b.py have the same revision 0002, so only one would run: {RENUMBER} 0002_b.py`"],
    ),
    "three of one number": (
        chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0002_c="0001"),
        [
            (
                f": 0002_a.py, 0002_b.py and 0002_c.py have the same revision 0002, so only one would run:"
                f" {RENUMBER} 0002_c.py`"
            )
        ],
    ),
    "a fork": (
        chain(_0001_a=None, _0002_a="0001", _0003_b="0001"),
        [f": 0002_a.py and 0003_b.py follow 0001, but only one migration can: {RENUMBER} 0003`"],
    ),
    "two first ones": (
        chain(_0001_a=None, _0002_b=None),
        [
            (
                f": 0001_a.py and 0002_b.py have `down_revision = None`, but only one migration can be the first:"
                f" {RENUMBER} 0002`"
            )
        ],
    ),
    "a gap": (
        chain(_0001_a=None, _0003_b="0002"),
        [': 0003_b.py follows 0002, which no file has: bring that file back, or write `down_revision = "0001"`'],
    ),
    "a gap before the first": (
        chain(_0002_b="0001", _0003_c="0002"),
        [": 0002_b.py follows 0001, which no file has: bring that file back, or write `down_revision = None`"],
    ),
    "a gap before two": (
        chain(_0001_a=None, _0003_b="0002", _0004_c="0002"),
        [": 0003_b.py and 0004_c.py follow 0002, which no file has: bring that file back"],
    ),
    "another order than that of the numbers": (
        chain(_0001_a=None, _0002_b="0003", _0003_c="0001"),
        [
            (
                ": 0002_b.py follows 0003, but migrations run in the order of their"
                " numbers: `nox -s migration -- --renumber 0002` if it was not deployed"
            )
        ],
    ),
    "another order as text, which is how revisions are compared": (
        chain(_0001_a=None, _02_b="0001", _010_c="02"),
        [
            (
                ": 010_c.py follows 02, but migrations run in the order of their"
                " numbers: `nox -s migration -- --renumber 010` if it was not deployed"
            )
        ],
    ),
    "one that follows itself": (
        chain(_0001_a=None, _0002_b="0002", _0003_c="0002"),
        [': 0002_b.py follows itself: write `down_revision = "0001"`'],
    ),
    "another number than that of the name": (
        {**FIRST, "0002_b.py": text("b", "0001", None), **chain(_0003_c="0002")},
        [
            (
                '/0002_b.py says `revision = "0001"`, but its name begins with 0002: write `revision = "0002"`,'
                " or rename the file"
            )
        ],
    ),
    "no Python": (
        {**FIRST, "0002_b.py": 'revision = "0002"\ndef :\n', **chain(_0003_c="0002")},
        ["/0002_b.py is not valid Python: invalid syntax (line 2): correct it"],
    ),
    "no revision": (
        {**FIRST, "0002_b.py": 'down_revision = "0001"\n'},
        ['/0002_b.py does not set `revision` to a plain string: write `revision = "0002"`, once, at the top level'],
    ),
    "neither as a plain string": (
        {**FIRST, "0002_b.py": 'revision = f"{2:04}"\ndown_revision = ("0001",)\n'},
        [
            (
                "/0002_b.py does not set `revision` and `down_revision` to a plain string: write"
                ' `revision = "0002"` and `down_revision = "NNNN"` (the one before it; None for the first),'
                " once, at the top level"
            )
        ],
    ),
    "a revision that is set twice": (
        {**FIRST, "0002_b.py": 'revision = "0001"\nrevision = "0002"\ndown_revision = "0001"\n'},
        ['/0002_b.py does not set `revision` to a plain string: write `revision = "0002"`, once, at the top level'],
    ),
    "names that are none": (
        {**FIRST, "add_ticket.py": text("b", "0002", "0001"), "0002-b.py": "", "0002b_c.py": "", "0002.py": ""},
        [
            f"/{name} is not named like a migration: rename it to NNNN_name.py, or move it out of the folder"
            for name in ("0002-b.py", "0002.py", "0002b_c.py", "add_ticket.py")
        ],
    ),
    "two situations": (
        chain(_0001_a=None, _0002_a="0001", _0003_b="0001", _0003_c="0002", _0005_d="0004"),
        [
            f": 0003_b.py and 0003_c.py have the same revision 0003, so only one would run: {RENUMBER} 0003_c.py`",
            ': 0005_d.py follows 0004, which no file has: bring that file back, or write `down_revision = "0003"`',
        ],
    ),
}


class TestMigrationFileProblems:
    @pytest.mark.parametrize("what", UNSOUND)
    def test_are_one_line_for_each_situation(self, tmp_path: Path, what: str) -> None:
        """It names the files and the fix, and what follows from it is not told as well."""
        files, problems = UNSOUND[what]
        write(tmp_path, files)
        assert migration_file_problems(tmp_path) == [f"{FOLDER}{line}" for line in problems]

    @pytest.mark.parametrize(
        "files",
        [
            {},
            FIRST,
            chain(_0001_a=None, _0003_b="0001", _0010_c="0003"),
            {**FIRST, ".#0002_b.py": "an editor's", "notes.txt": "", "0002_b.py.orig": ""},
            {**FIRST, "0002_b.py": 'revision = "0002"\ndown_revision: str = "0001"\nSQL = "\\:x"\n'},
        ],
    )
    def test_are_none_where_the_chain_is_sound(self, tmp_path: Path, files: Files) -> None:
        """Skipped numbers, annotations, a colon's backslash are fine; what Alembic does not load is not looked at."""
        write(tmp_path, files)
        assert migration_file_problems(tmp_path) == []

    def test_are_none_where_there_are_no_migrations(self, tmp_path: Path) -> None:
        """A service need not have a database."""
        assert migration_file_problems(tmp_path) == []

    def test_are_none_in_this_repository(self) -> None:
        """The migrations that are shipped are sound."""
        assert migration_file_problems(ROOT) == []

    def test_name_a_link_to_nowhere(self, tmp_path: Path) -> None:
        """A file that cannot be read is told like one that cannot be understood."""
        (write(tmp_path, FIRST) / "0002_b.py").symlink_to("nowhere")
        [line] = migration_file_problems(tmp_path)
        assert line.startswith(f"{FOLDER}/0002_b.py cannot be read: No such file")


class TestCommand:
    def test_says_what_is_wrong_with_code_1(self, tmp_path: Path) -> None:
        """A line for each problem, which is what `nox -s lint` shows."""
        write(tmp_path, chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0004_d="0003"), package="shop")
        done = pipeline(tmp_path, "migrations")
        assert (done.returncode, done.stdout) == (1, "")
        first, second = done.stderr.splitlines()
        assert "0002_a.py and 0002_b.py" in first
        assert "0004_d.py follows 0003" in second

    def test_renumbers_and_says_what_still_is_wrong(self, tmp_path: Path) -> None:
        """The lines of what was done, then those of what is left."""
        folder = write(tmp_path, chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0004_d="0003"), package="shop")
        done = pipeline(tmp_path, "migrations", "--renumber", "0002_b.py")
        assert done.returncode == 0
        moved, left = done.stderr.splitlines()
        assert "0002_b.py is 0005_b.py now" in moved
        assert "0004_d.py follows 0003" in left
        assert (folder / "0005_b.py").exists()

    @pytest.mark.parametrize("arguments", [["--renumber", "9999"], ["--renumber"], ["--renumber", "0001", "more"]])
    def test_refuses_with_one_line_and_code_2(self, tmp_path: Path, arguments: list[str]) -> None:
        """Bad usage changes nothing."""
        folder = write(tmp_path, chain(_0001_a=None, _0002_a="0001"), package="shop")
        done = pipeline(tmp_path, "migrations", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert sorted(read(folder)) == ["0001_a.py", "0002_a.py"]


class TestSessions:
    @pytest.fixture(name="ran")
    def _ran(self) -> list[tuple[str, ...]]:
        return []

    @pytest.fixture(name="noxfile")
    def _noxfile(self, ran: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """The menu without nox, which is not among the tests' packages; what it would run is in `ran`."""
        menu = SimpleNamespace(options=SimpleNamespace(), session=lambda one=None, **_: one or (lambda named: named))
        monkeypatch.setitem(sys.modules, "nox", menu)
        spec = importlib.util.spec_from_file_location("the_noxfile", ROOT / "noxfile.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, "environment", lambda _, group: Path(group, "bin/python"))
        monkeypatch.setattr(module, "run", lambda program, *arguments: ran.append((str(program), *arguments)))
        monkeypatch.setattr(module, "tried", lambda *_: 0)
        return module

    def test_lint_checks_the_migration_files(self, noxfile: ModuleType, ran: list[tuple[str, ...]]) -> None:
        """A pull request is told, and not only the deploy after it."""
        noxfile.lint(SimpleNamespace(posargs=[]))
        assert ("lint/bin/python", "-m", "pipeline", "migrations") in ran

    @pytest.mark.parametrize("given", [["--renumber", "0002"], ["--renumber=0002"]])
    def test_migration_renumbers_where_it_is_asked_to(
        self, noxfile: ModuleType, ran: list[tuple[str, ...]], given: list[str]
    ) -> None:
        """It is a verb of the pipeline."""
        noxfile.migration(SimpleNamespace(posargs=given))
        assert ran == [("pipeline/bin/python", "-m", "pipeline", "migrations", *given)]

    def test_migration_writes_one_without_that(self, noxfile: ModuleType, ran: list[tuple[str, ...]]) -> None:
        """As ever, by the service's own command."""
        noxfile.migration(SimpleNamespace(posargs=["add the ticket"]))
        assert ran == [("test/bin/python", "-m", "backend.migrations", "new", "add the ticket")]
