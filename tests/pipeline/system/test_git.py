"""What a release is made of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import SlipwayError
from pipeline.system.git import (
    content_hash,
    git_problem,
    has_commit,
    is_older,
    is_shallow,
    read_source,
    shipped_files,
    source_problems,
)


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


class TestGitProblem:
    def test_is_none_in_a_repository(self, tree: Path) -> None:
        """Before its first commit, too: its rules are known."""
        git(tree, "init", "-q")
        assert git_problem(tree) is None

    def test_is_none_in_a_worktree(self, tree: Path) -> None:
        """Its `.git` is a file."""
        git(tree, "init", "-q")
        git(tree, "add", ".")
        git(tree, "commit", "-qm", "x")
        git(tree, "worktree", "add", "-q", "beside")
        assert git_problem(tree / "beside") is None
        assert read_source(tree / "beside").commit == read_source(tree).commit

    def test_is_no_mistake_without_a_repository(self, tree: Path) -> None:
        """An unpacked archive may ship."""
        problem = git_problem(tree)
        assert problem
        assert (problem.what, problem.in_the_way) == (f"{tree} is no git repository", False)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
    def test_names_dubious_ownership_and_its_fix(self, tree: Path) -> None:
        """Git then tells nothing, nor which files it ignores."""
        git(tree, "init", "-q")
        os.chown(tree, 1234, 1234)
        os.chown(tree / ".git", 1234, 1234)
        problem = git_problem(tree)
        assert problem
        assert problem.in_the_way
        assert f"`git config --global --add safe.directory {tree}`" in problem.what

    def test_has_the_words_of_git_for_a_broken_repository(self, tree: Path) -> None:
        """A worktree whose repository was moved away."""
        (tree / ".git").write_text("gitdir: /nowhere/.git/worktrees/x\n")
        problem = git_problem(tree)
        assert problem
        assert problem.in_the_way
        assert problem.what.startswith(f"git cannot read {tree / '.git'}: fatal: not a git repository: /nowhere")

    def test_names_git_where_it_is_not_installed(self, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A machine that has Python alone deploys."""
        monkeypatch.setenv("PATH", "/nonexistent")
        problem = git_problem(tree)
        assert problem
        assert (problem.what, problem.in_the_way) == ("git is not installed", False)


@pytest.mark.parametrize("repository", [True, False])
class TestSourceProblems:
    def made(self, tree: Path, repository: bool) -> Path:
        if repository:
            git(tree, "init", "-q")
            git(tree, "add", ".")
        return tree

    def test_are_none_for_files_and_links_to_them(self, tree: Path, repository: bool) -> None:
        """An image has the link, a folder of files a copy: both have its content."""
        (tree / "backend/b.py").symlink_to("a.py")
        assert source_problems(self.made(tree, repository), ["backend"]) == []

    @pytest.mark.parametrize("target", ["../shared", "../README.md", "/etc/hosts", "sub", "nowhere", "self"])
    def test_name_a_link_that_leads_elsewhere(self, tree: Path, repository: bool, target: str) -> None:
        """To a folder, outside of what ships, or nowhere: no target has what is behind it."""
        (tree / "shared").mkdir()
        (tree / "backend/sub").mkdir()
        (tree / "backend/self").symlink_to(target)
        [line] = source_problems(self.made(tree, repository), ["backend"])
        assert line == (
            f"backend/self is a symbolic link to {target}, which is no file in backend: put the files themselves there"
        )

    def test_name_a_folder_that_is_a_link(self, tree: Path, repository: bool) -> None:
        """The folder itself, of which git lists nothing."""
        (tree / "backend").rename(tree / "moved")
        (tree / "backend").symlink_to("moved")
        [line] = source_problems(self.made(tree, repository), ["backend"])
        assert line.startswith("backend is a symbolic link to moved")


class TestSubmodules:
    @pytest.mark.parametrize("added", [True, False])
    def test_are_named(self, tree: Path, tmp_path_factory: pytest.TempPathFactory, added: bool) -> None:
        """Git lists it as one entry, which is no file: it would be missing where the release runs."""
        library = tmp_path_factory.mktemp("library")
        git(library, "init", "-q")
        git(library, "commit", "-qm", "x", "--allow-empty")
        git(tree, "init", "-q")
        if added:
            git(tree, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "backend/vendor")
        else:
            git(tree, "clone", "-q", str(library), "backend/vendor")
        [line] = source_problems(tree, ["backend"])
        assert line.startswith("backend/vendor is a repository of its own (a submodule), which no release contains")


class TestIsShallow:
    def test_is_a_clone_without_its_beginning(self, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Whether a commit is older than another one is not known there."""
        git(tree, "init", "-q")
        for _ in range(2):
            git(tree, "commit", "-qm", "x", "--allow-empty")
        shallow = tmp_path_factory.mktemp("shallow")
        git(shallow, "clone", "-q", "--depth", "1", f"file://{tree}", ".")
        assert (is_shallow(tree), is_shallow(shallow)) == (False, True)
