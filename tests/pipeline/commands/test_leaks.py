"""`python -m pipeline leaks`, a part of `nox -s lint`: here, and in a repository that was made from this one."""

from __future__ import annotations

import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.commands import leaks as verb
from pipeline.errors import SlipwayError
from pipeline.system.progress import Progress
from tests.logs import logged
from tests.pipeline.commands.clones import IDENTITY, commit, git, run
from tests.project import PROJECT
from tests.secret_values import PASSWORD, TOKEN
from tests.tools import need


@pytest.fixture(autouse=True)
def _needed() -> None:
    need("kingfisher")


def written(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def know(root: Path, compiled: Path) -> None:
    """Give ROOT what an earlier run leaves: the compiled rules."""
    shutil.copytree(compiled, root / ".slipway/leaks/rules")


def test_searches_a_derived_repository(clone: Path, compiled: Path) -> None:
    """Renamed, with its own commits: the same search, by its own pyproject.toml; exit code 1, a line each."""
    know(clone, compiled)
    assert run(clone, "rename", "quite-another").returncode == 0
    commit(clone)
    passed = run(clone, "leaks")
    assert (passed.returncode, "no secret in git: " in passed.stderr) == (0, True), passed.stderr
    written(clone, "k8s/overlays/staging/secrets.env", f"JWT_SECRET_KEY={PASSWORD}\n")
    git(clone, "add", "--all")
    git(clone, *IDENTITY, "commit", "--quiet", "--message", "oops")
    git(clone, *IDENTITY, "revert", "--no-edit", "HEAD")
    written(clone, "backend/token.py", f'TOKEN = "{TOKEN}"\n')
    done = run(clone, "leaks")
    assert done.returncode == 1
    lines = [line.removeprefix("✗ ") for line in done.stderr.splitlines() if "looks like a secret" in line]
    assert [line.partition(":")[0] for line in lines] == ["backend/token.py", "k8s/overlays/staging/secrets.env"]
    assert not {PASSWORD, TOKEN} & set(re.findall(r"\w+", done.stdout + done.stderr))


def test_says_where_it_cannot(tmp_path: Path, clone: Path, compiled: Path) -> None:
    """Without a repository; and of a clone that lacks commits, how many were searched."""
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{clone}", str(shallow))
    know(shallow, compiled)
    said = run(shallow, "leaks")
    assert (said.returncode, "only 1 commits were searched" in said.stderr) == (0, True), said.stderr
    shutil.rmtree(shallow / ".git")
    said = run(shallow, "leaks")
    assert (said.returncode, "no file and no commit was searched for secrets" in said.stderr) == (0, True)


@pytest.mark.parametrize("where", ["here", "in CI"])
def test_says_that_a_platform_has_no_wheel(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI, where nobody reads a warning, it fails."""
    monkeypatch.setattr(verb, "is_there", lambda: False)
    monkeypatch.setenv("CI", "true" if where == "in CI" else "")
    with logged() as said:
        if where == "in CI":
            with pytest.raises(SlipwayError, match="has no wheel of kingfisher-bin: run `nox -s lint` on Linux"):
                verb.leaks(PROJECT, Namespace(), Progress(Console(quiet=True)))
        else:
            verb.leaks(PROJECT, Namespace(), Progress(Console(quiet=True)))
            assert "has no wheel of kingfisher-bin" in said[0]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('0123456789abcdef = " "', "public: `0123456789abcdef` has no reason: say why"),
        ('a_password = "it is none"', "public: a key is no fingerprint, 16 digits as"),
    ],
)
def test_an_entry_has_a_fingerprint_and_a_reason(entry: str, says: str, clone: Path) -> None:
    """A value itself has no place in that list."""
    path = clone / "pyproject.toml"
    path.write_text(path.read_text().replace("[tool.slipway.public]\n", f"[tool.slipway.public]\n{entry}\n", 1))
    done = run(clone, "leaks")
    assert (done.returncode, says in done.stderr, "a_password" in done.stderr) == (2, True, False), done.stderr
