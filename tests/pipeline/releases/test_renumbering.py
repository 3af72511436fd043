"""What moves a migration file to the end of the chain."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.releases.migration_files import migration_file_problems, renumber_migration
from tests.pipeline.releases.chains import FIRST, FOLDER, Files, chain, read, text, write


class TestRenumberMigration:
    @pytest.mark.parametrize("which", ["0002_b.py", f"{FOLDER}/0002_b.py", f"./{FOLDER}/0002_b.py"])
    def test_moves_one_of_two_with_one_number_to_the_end(self, tmp_path: Path, which: str) -> None:
        """Only the two values and the name change; the one that kept the number keeps its followers, which is said."""
        files = chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0003_c="0002")
        folder = write(tmp_path, files)
        (folder / "0002_b.py").chmod(0o640)
        assert renumber_migration(tmp_path, which) == [
            '0002_b.py is 0004_b.py now: `revision = "0004"`, `down_revision = "0003"`',
            (
                "0003_c.py was left, and follows 0002_a.py; if it needs what 0004_b.py does,"
                " `nox -s migration -- --renumber 0003_c.py` as well"
            ),
        ]
        moved = files.pop("0002_b.py")
        moved = moved.replace("revision  =  '0002'", "revision  =  '0004'").replace('None = "0001"', 'None = "0003"')
        assert read(folder) == {**files, "0004_b.py": moved}
        assert stat.S_IMODE((folder / "0004_b.py").stat().st_mode) == 0o640
        assert migration_file_problems(tmp_path) == []

    def test_links_what_followed_to_what_was_before(self, tmp_path: Path) -> None:
        """The chain closes behind what is taken out of it."""
        files = chain(_0001_a=None, _0002_b="0001", _0003_c="0002", _0004_d="0003")
        folder = write(tmp_path, files)
        assert renumber_migration(tmp_path, "0002") == [
            '0002_b.py is 0005_b.py now: `revision = "0005"`, `down_revision = "0004"`',
            (
                '0003_c.py: `down_revision = "0001"`; if it needs what 0005_b.py does,'
                " `nox -s migration -- --renumber 0003_c.py` as well"
            ),
        ]
        assert read(folder)["0003_c.py"] == files["0003_c.py"].replace('None = "0002"', 'None = "0001"')
        assert read(folder)["0004_d.py"] == files["0004_d.py"]
        assert migration_file_problems(tmp_path) == []

    def test_lets_another_be_the_first(self, tmp_path: Path) -> None:
        """None becomes a string, and a string None."""
        folder = write(tmp_path, chain(_0001_a=None, _0002_b="0001"))
        renumber_migration(tmp_path, "0001")
        assert read(folder)["0003_a.py"] == text("a", "0001", None).replace("'0001'", "'0003'").replace(
            "| None = None; ", '| None = "0002"; '
        )
        assert read(folder)["0002_b.py"] == text("b", "0002", "0001").replace('None = "0001"', "None = None")
        assert migration_file_problems(tmp_path) == []

    @pytest.mark.parametrize(
        ("files", "which"),
        [
            (chain(_0001_a=None, _0002_a="0001", _0003_b="0001"), "0003"),
            (chain(_0001_a=None, _0002_b=None), "0002"),
            (chain(_0001_a=None, _0002_b="0003", _0003_c="0001"), "0002"),
            (chain(_0001_a=None, _0002_b="0003", _0003_c="0002"), "0002"),
            (chain(_0001_a=None, _0002_b="0003", _0003_c="0001"), "0003"),
            (chain(_0001_a=None, _0003_b="0002", _0004_c="0003"), "0003"),
            (chain(_0001_a=None, _02_b="0001", _010_c="02"), "010"),
        ],
    )
    def test_mends_what_it_is_named_as_the_fix_of(self, tmp_path: Path, files: Files, which: str) -> None:
        """A fork, two first ones, a wrong order; and it makes no circle."""
        write(tmp_path, files)
        renumber_migration(tmp_path, which)
        assert migration_file_problems(tmp_path) == []

    def test_leaves_the_highest_number_as_it_is(self, tmp_path: Path) -> None:
        """The last of a fork need only follow the other."""
        folder = write(tmp_path, chain(_0001_a=None, _0002_a="0001", _0005_b="0001"))
        assert renumber_migration(tmp_path, "0005") == ['0005_b.py: `revision = "0005"`, `down_revision = "0002"`']
        assert sorted(read(folder)) == ["0001_a.py", "0002_a.py", "0005_b.py"]

    @pytest.mark.parametrize(
        ("files", "steps"),
        [
            (chain(_0001_a=None, _0002_a="0001", _0003_b="0001", _0004_b2="0003"), ["0003", "0004"]),
            (chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0003_b2="0002"), ["0002_b.py", "0003"]),
            (
                chain(_0001_a=None, _0002_a="0001", _0002_b="0001", _0003_a2="0002", _0003_b2="0002"),
                ["0002_b.py", "0003_b2.py"],
            ),
        ],
    )
    def test_moves_a_branch_one_by_one(self, tmp_path: Path, files: Files, steps: list[str]) -> None:
        """In their order, which they keep: each line leads to the next step."""
        folder = write(tmp_path, files)
        told: list[str] = []
        for step in steps:
            told = renumber_migration(tmp_path, step)
        assert "if it needs" not in told[0]
        assert migration_file_problems(tmp_path) == []
        branch = [path.name.partition("_")[2] for path in sorted(folder.glob("*_b*.py"))]
        assert branch == ["b.py", "b2.py"]

    def test_tells_of_a_contract_that_names_the_old_number(self, tmp_path: Path) -> None:
        """Rewritten, it would wait for a migration that comes after it; whoever wrote it moves it, too."""
        contract = text("c", "0003", "0002", contract="0002")
        folder = write(tmp_path, {**chain(_0001_a=None, _0002_b="0001"), "0003_c.py": contract})
        *_, line = renumber_migration(tmp_path, "0002")
        assert line == (
            '0003_c.py still says `contract_after = "0002"`: if it means 0004_b.py, renumber it as well, then write'
            ' `contract_after = "0004"`'
        )
        assert 'contract_after: str | None = "0002"' in read(folder)["0003_c.py"]

    @pytest.mark.parametrize(
        ("files", "which", "message"),
        [
            (FIRST, "0009", f"no migration `0009`: give a number or a file name; the last is {FOLDER}/0001_a.py"),
            (FIRST, "", "no migration ``"),
            ({}, "0001", "there is none at all"),
            (chain(_0001_a=None, _0002_b="0001"), "0002", "0002_b.py is the last migration already"),
            (
                chain(_0001_a=None, _0002_a="0001", _0002_b="0001"),
                "0002",
                (
                    f"`0002` is the number of {FOLDER}/0002_a.py and {FOLDER}/0002_b.py: say which,"
                    " `nox -s migration -- --renumber 0002_b.py`"
                ),
            ),
            ({**chain(_0001_a=None, _0003_c="0001"), "0002_b.py": "("}, "0001", "0002_b.py is not valid Python"),
            (
                {**chain(_0001_a=None, _0003_c="0001"), "0002_b.py": 'revision = "00" "02"\ndown_revision = "0001"'},
                "0002",
                'cannot be rewritten safely: write it as `revision = "0002"`',
            ),
            (
                {**chain(_0001_a=None, _0002_b="0001"), "0003_c.py": 'revision = "0003"\ndown_revision = r"0002"'},
                "0002",
                'cannot be rewritten safely: write it as `down_revision = "0002"`',
            ),
        ],
    )
    def test_refuses_and_leaves_the_files_untouched(
        self, tmp_path: Path, files: Files, which: str, message: str
    ) -> None:
        """One line, exit code 2, and nothing was written."""
        folder = write(tmp_path, files)
        with pytest.raises(UsageError) as refused:
            renumber_migration(tmp_path, which)
        [line] = refused.value.problems
        assert message in line
        assert read(folder) == files

    def test_leaves_all_as_it_was_where_it_cannot_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that is full after the first of two files leaves the old chain, and no parts."""
        files = chain(_0001_a=None, _0002_b="0001", _0003_c="0002")
        folder = write(tmp_path, files)
        whole = Path.write_bytes

        def fail(path: Path, data: bytes) -> int:
            if "0003" in path.name:
                raise OSError(28, "No space left on device")
            return whole(path, data)

        monkeypatch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space left"):
            renumber_migration(tmp_path, "0002")
        assert read(folder) == files
