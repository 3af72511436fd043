"""What takes the example's place, file by file: marks, numbers of migrations, lists."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.config.example import Lists, Parts, changed_files, digest_text, without

NOTHING = Lists()
MIGRATION = 'revision = "{}"\ndown_revision = {}\n'
VERSIONS = "backend/migrations/versions/"


def example(*files: str) -> Parts:
    """A table where FILES are the example's."""
    return Parts(
        tables=NOTHING, page=NOTHING, requests=NOTHING, dashboards=NOTHING, files=files,
        tests=Lists(kept=("tests/",), example=("tests/board/",)),
    )  # fmt: skip


def write(root: Path, **texts: str) -> list[str]:
    """Write files, `__` for a slash; return their names."""
    names = []
    for name, text in texts.items():
        names.append(name.replace("__", "/") + (".py" if "." not in name else ""))
        (root / names[-1]).parent.mkdir(parents=True, exist_ok=True)
        (root / names[-1]).write_text(text)
    return names


class TestMarks:
    @pytest.mark.parametrize(
        ("first", "last"),
        [
            ("# example-only", "# /example-only"),
            ("// example-only", "// /example-only"),
            ("  /* example-only */", "  /* /example-only */"),
            ("<!-- example-only -->", "<!-- /example-only -->"),
        ],
    )
    def test_what_is_between_them_leaves(self, tmp_path: Path, first: str, last: str) -> None:
        """In the comments of any file, with the empty line before; twice in a file, and at its end."""
        text = f"a\n\n{first}\nx\n\ny\n{last}\n\nb\n\n{first}\nz\n{last}\n"
        assert without(tmp_path, example(), ["f"], {"f": text}) == {"f": b"a\n\nb\n"}

    def test_a_file_that_they_name_takes_the_place(self, tmp_path: Path) -> None:
        """As the caller has it; the empty line before stays."""
        text = "a\n\n# example-only: bare/x.toml takes its place\nx\n# /example-only\n\nb\n"
        changed = without(tmp_path, example(), ["f"], {"f": text, "bare/x.toml": "y\n"})
        assert changed["f"] == b"a\n\ny\n\nb\n"

    def test_a_text_without_them_stays(self, tmp_path: Path) -> None:
        """A heading of that name, or the words in a sentence, are no marks."""
        texts = {
            "f.md": "# example-only things\n\nWhat is example-only\n",
            "tests/x.py": "# example-only\n# /example-only\n",
        }
        assert without(tmp_path, example(), list(texts), texts) == {}


class TestFiles:
    def test_of_the_example_leave_and_others_take_their_place(self, tmp_path: Path) -> None:
        """The innermost folder of the lists says whose a test is; what is below bare/tree goes where its path says."""
        texts = {"bare/tree/backend/domain.py": "new", "backend/domain.py": "old"}
        names = ["backend/board/a.py", "tests/board/test_a.py", "tests/test_b.py", "backend/b.py", *texts]
        changed = without(tmp_path, example("backend/board/"), names, texts)
        assert changed == {
            "backend/board/a.py": None,
            "tests/board/test_a.py": None,
            "bare/tree/backend/domain.py": None,
            "backend/domain.py": b"new",
        }

    def test_are_compared_with_the_templates(self, tmp_path: Path) -> None:
        """A change counts in a file that leaves and between marks, whatever the service's name is, and nowhere else."""
        marked = "{}\n# example-only\n{}\n# /example-only\n"
        names = write(tmp_path, backend__board__a="1", backend__b=marked.format("1", "2 shop"), backend__c="1")
        parts = example("backend/board/")
        (tmp_path / "bare").mkdir()

        def plain(name: str) -> Callable[[str, str], str]:
            return lambda _, text: text.replace(name, "")

        (tmp_path / "bare/digests.txt").write_text(digest_text(tmp_path, parts, names, plain("shop")))
        write(tmp_path, backend__b=marked.format("own", "2 desk"), backend__c="own")
        assert changed_files(tmp_path, parts, names, plain("desk")) == []
        write(tmp_path, backend__b=marked.format("1", "own"), backend__board__a="own")
        names += write(tmp_path, backend__board__own="")
        assert changed_files(tmp_path, parts, names, plain("desk")) == [
            "backend/b.py", "backend/board/a.py", "backend/board/own.py",
        ]  # fmt: skip


class TestMigrations:
    def test_follow_each_other_when_one_of_them_leaves(self, tmp_path: Path) -> None:
        """Numbers stay, gaps are fine; the new one is the next, and what needs no change is left as it is."""
        new = "bare__tree__backend__migrations__versions__"
        names = write(
            tmp_path,
            **{
                "backend__migrations__versions__0001_keys": MIGRATION.format("0001", "None"),
                "backend__migrations__versions__0002_board": MIGRATION.format("0002", '"0001"'),
                "backend__migrations__versions__0003_accounts": MIGRATION.format("0003", '"0002"  # the board'),
                "backend__migrations__versions__0004_more": MIGRATION.format("0004", "'0003'"),
                f"{new}NNNN_items": MIGRATION.format("NNNN", '"NNNN"'),
            },
        )
        changed = without(tmp_path, example(f"{VERSIONS}0002_board.py"), names, {})
        assert {name.removeprefix(VERSIONS): text for name, text in changed.items() if name.startswith(VERSIONS)} == {
            "0002_board.py": None,
            "0003_accounts.py": MIGRATION.format("0003", '"0001"  # the board').encode(),
            "0005_items.py": MIGRATION.format("0005", '"0004"').encode(),
        }

    def test_can_be_replaced_under_their_name(self, tmp_path: Path) -> None:
        """The new text counts, though it follows the same one."""
        names = write(
            tmp_path,
            backend__migrations__versions__0001_keys=MIGRATION.format("0001", "None"),
            bare__tree__backend__migrations__versions__0001_keys="# new\n" + MIGRATION.format("0001", "None"),
        )
        assert (without(tmp_path, example(), names, {})[f"{VERSIONS}0001_keys.py"] or b"").startswith(b"# new")
