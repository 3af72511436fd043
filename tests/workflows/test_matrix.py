"""matrix.yml, run: nobody looks at what nobody started, so that it has to say when it is red."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import AddRow
from tests.workflows.act import Checkout

pytestmark = pytest.mark.e2e

TABLE = "workflows"
# Plays GitHub's issues: `list` says what is open, all else is noted.
GH = """#!/bin/sh
[ "$2" = list ] && cat "{issues}/open" && exit
printf '%s\\n' "$*" >> "{issues}/told"
echo 7 > "{issues}/open"
"""


@pytest.fixture(name="told")
def _told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was said in issues, a line each; there is no issue yet."""
    (tmp_path / "open").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text(GH.format(issues=tmp_path))
    (tmp_path / "bin/gh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "told").touch()
    return tmp_path / "told"


def test_a_red_matrix_opens_one_issue(checkout: Checkout, told: Path, add_row: AddRow) -> None:
    """Green, it says nothing; red, it opens one; red again, it comments on that."""
    green = checkout.run("matrix.yml", "schedule")
    assert green.code == 0, str(green)
    assert green.jobs == {"e2e": "success", "workflows": "success", "image": "success"}
    assert told.read_text() == ""
    checkout.replace(".github/workflows/matrix.yml", "--collect-only -q", "--collect-only --no-such-option")
    checkout.commit("a mistake")
    for said in ("issue create --title The matrix is red --body ", "issue comment 7 --body "):
        red = checkout.run("matrix.yml", "schedule")
        assert (red.code, red.jobs["e2e"], red.jobs["red"]) == (1, "failure", "success"), str(red)
        line = told.read_text().splitlines()[-1]
        assert line.startswith(said)
        assert "https://github.com/Acme/App/actions/runs/" in line
    assert len(told.read_text().splitlines()) == 2
    add_row(
        TABLE, f"matrix, red                 said in one issue, and again in a comment; green in {green.seconds:3.0f} s"
    )
