"""Whether git has a secret: what is searched, what is said, and what is remembered."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pipeline.supply import kingfisher, leaks
from pipeline.supply.leaks import leak_problems
from tests.pipeline.commands.clones import commit, git
from tests.secret_values import PASSWORD, TOKEN
from tests.tools import need

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("kingfisher")


@pytest.fixture(name="cache")
def _cache(tmp_path: Path, compiled: Path) -> Path:
    """What a run leaves for the next one: the compiled rules."""
    folder = tmp_path / "cache"
    shutil.copytree(compiled, folder / "rules")  # kingfisher compiles anew where it finds a link
    return folder


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """A repository with a commit."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text(".env\n.slipway/\n")
    commit(root)
    return root


def written(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def fingerprint(problem: str) -> str:
    """The one that PROBLEM says to write down."""
    match = re.search(r"\[tool\.slipway\.public\]: ([0-9a-f]{16}) = ", problem)
    assert match, problem
    return match[1]


class TestTheTree:
    def test_is_what_git_would_take(self, root: Path, cache: Path) -> None:
        """New files and changed ones, not what is ignored, nor where a link leads."""
        written(root, ".env", f"POSTGRES_PASSWORD={PASSWORD}\n")
        (root / "link").symlink_to(".env")
        assert leak_problems(root, cache, {}) == []
        written(root, "notes/new.txt", f"\nPOSTGRES_PASSWORD={PASSWORD}\n")
        [line] = leak_problems(root, cache, {})
        assert line.startswith("notes/new.txt:2: looks like a secret (own.setting: ")
        assert "revoke" not in line  # nobody else has it yet
        assert PASSWORD not in line

    def test_may_have_what_everybody_may_know(self, root: Path, cache: Path) -> None:
        """By the fingerprint that the line names: of this value, wherever it is, and of no other."""
        written(root, "one", f"POSTGRES_PASSWORD={PASSWORD}\n")
        [line] = leak_problems(root, cache, {})
        public = {fingerprint(line): "why"}
        written(root, "two", f"REDIS_PASSWORD={PASSWORD}\n")
        assert leak_problems(root, cache, public) == []
        written(root, "two", f"REDIS_PASSWORD={PASSWORD[::-1]}\n")
        assert len(leak_problems(root, cache, public)) == 1


class TestTheHistory:
    def test_keeps_what_was_removed_again(self, root: Path, cache: Path) -> None:
        """The line says in which commit it is, and that it is to be revoked; then it may be written down."""
        written(root, "token", f"{TOKEN}\n")
        commit(root)
        [line] = leak_problems(root, cache, {})
        assert f"revoke it: commit {git(root, 'rev-parse', 'HEAD')[:12]} has it" in line
        (root / "token").unlink()
        commit(root)
        [line] = leak_problems(root, cache, {})
        assert line.startswith(f"token:1 of commit {git(root, 'rev-parse', 'HEAD~1')[:12]}: looks like a secret")
        assert "revoke it" in line
        assert TOKEN not in line
        assert leak_problems(root, cache, {fingerprint(line): "revoked"}) == []

    def test_is_read_once(self, root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then only what came since; with other rules, all of it."""
        read: list[str | None] = []

        def scan(root: Path, head: str, since: str | None, folder: Path) -> list[kingfisher.Leak]:
            read.append(since)
            return kingfisher.scan_commits(root, head, since, folder)

        monkeypatch.setattr(leaks, "scan_commits", scan)
        written(root, "token", f"{TOKEN}\n")
        commit(root)
        first = git(root, "rev-parse", "HEAD").strip()
        for _ in range(2):
            assert len(leak_problems(root, cache, {})) == 1
        assert read == [None]
        (root / "token").unlink()
        commit(root)
        assert len(leak_problems(root, cache, {})) == 1
        assert read == [None, first]
        assert TOKEN not in (cache / "history.json").read_text()
        monkeypatch.setattr(leaks, "rules_version", lambda: "others")
        assert len(leak_problems(root, cache, {})) == 1
        assert read == [None, first, None]

    def test_that_was_written_anew_has_what_it_has(self, root: Path, cache: Path) -> None:
        """Who takes a commit back before it was pushed is done."""
        written(root, "token", f"{TOKEN}\n")
        commit(root)
        assert len(leak_problems(root, cache, {})) == 1
        git(root, "reset", "--quiet", "--hard", "HEAD~1")
        written(root, "other", "nothing\n")
        commit(root)
        assert leak_problems(root, cache, {}) == []

    def test_of_a_repository_without_a_commit_is_empty(self, tmp_path: Path, cache: Path) -> None:
        """Its files are searched all the same."""
        root = tmp_path / "fresh"
        written(root, "token", f"{TOKEN}\n")
        git(root, "init", "--quiet")
        assert len(leak_problems(root, cache, {})) == 1
        (root / "token").unlink()
        assert leak_problems(root, cache, {}) == []
