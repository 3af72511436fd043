"""What a release is made of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.system.git import content_hash, has_commit, is_older, read_source, shipped_files


def git(root: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
    )


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    (tmp_path / "backend").mkdir()
    for name, text in {
        "backend/a.py": "a",
        "backend/ignored.log": "x",
        "lock.txt": "l",
        "README.md": "r",
        ".gitignore": "*.log\n",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


class TestShippedFiles:
    def test_are_tracked_and_untracked_but_not_ignored(self, tree: Path) -> None:
        """A new file ships before it is committed; an ignored one never does, nor what is in no shipped folder."""
        git(tree, "init", "-q")
        git(tree, "add", "backend/a.py")
        (tree / "backend/new.py").write_text("n")
        assert shipped_files(tree, ["backend"], ["lock.txt", "none.txt"]) == [
            "backend/a.py",
            "backend/new.py",
            "lock.txt",
        ]

    def test_leave_out_what_was_deleted(self, tree: Path) -> None:
        """A tracked file that is gone from the tree is not shipped."""
        git(tree, "init", "-q")
        git(tree, "add", ".")
        (tree / "backend/b.py").write_text("b")
        (tree / "backend/a.py").unlink()
        assert shipped_files(tree, ["backend"], []) == ["backend/b.py"]

    def test_need_no_git(self, tree: Path) -> None:
        """An unpacked archive ships all but caches and hidden files."""
        (tree / "backend/__pycache__").mkdir()
        (tree / "backend/__pycache__/a.pyc").write_text("c")
        (tree / "backend/.hidden").write_text("h")
        assert shipped_files(tree, ["backend"], []) == ["backend/a.py", "backend/ignored.log"]

    def test_say_when_there_is_nothing(self, tree: Path) -> None:
        """A folder of ignored files alone is a mistake."""
        git(tree, "init", "-q")
        (tree / "backend/a.py").unlink()
        with pytest.raises(SlipwayError, match="no file to ship in backend"):
            shipped_files(tree, ["backend"], [])


class TestContentHash:
    def test_depends_on_content_names_modes_and_settings_alone(self, tree: Path) -> None:
        """The same content has the same name wherever it lies; a byte, a name, a mode or a setting makes another."""
        names = ["backend/a.py"]
        first = content_hash(tree, names, "{}")
        (tree / "backend/a.py").touch()
        assert content_hash(tree, names, "{}") == first
        assert content_hash(tree, names, '{"a":1}') != first
        assert content_hash(tree, ["lock.txt"], "{}") != first
        (tree / "backend/a.py").chmod(0o755)
        assert content_hash(tree, names, "{}") != first


class TestReadSource:
    def test_knows_commit_and_dirt(self, tree: Path) -> None:
        """A commit is named; an uncommitted change makes it dirty."""
        git(tree, "init", "-q")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", "x")
        clean = read_source(tree)
        assert (len(clean.commit or ""), clean.dirty) == (40, False)
        (tree / "README.md").write_text("changed")
        assert read_source(tree).dirty

    def test_knows_nothing_without_git(self, tree: Path) -> None:
        """Where there is no repository there is no commit."""
        assert read_source(tree).commit is None


class TestIsOlder:
    def test_is_an_ancestor_and_nothing_else(self, tree: Path) -> None:
        """Not the same commit, not a newer one, not one of another branch."""
        commits = []
        git(tree, "init", "-q", "-b", "main")
        for name in ("one", "two", "aside"):
            if name == "aside":
                git(tree, "checkout", "-q", "-b", "aside", "HEAD~1")
            git(tree, "commit", "-q", "--allow-empty", "-m", name)
            commits.append(read_source(tree).commit or "")
        one, two, aside = commits
        assert is_older(tree, one, two)
        assert not is_older(tree, two, one)
        assert not is_older(tree, one, one)
        assert not is_older(tree, aside, two)

    def test_says_what_a_shallow_clone_lacks(self, tree: Path) -> None:
        """Not known is not newer."""
        git(tree, "init", "-q")
        git(tree, "commit", "-q", "--allow-empty", "-m", "one")
        assert has_commit(tree, read_source(tree).commit or "")
        assert not has_commit(tree, "1" * 40)
