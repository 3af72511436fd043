"""noxfile.py as nox runs it: what it prints of its own, and the sessions that change files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTHING = '''

@nox.session
def nothing(session: nox.Session) -> None:
    """Do nothing."""
'''


@pytest.fixture(name="clone")
def _clone(tmp_path: Path) -> Path:
    """Return a folder with noxfile.py and what its sessions read."""
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def nox(clone: Path, session: str, **environ: str) -> str:
    """Run `session` in `clone` with the environments of this repository; return all that was printed."""
    command = [sys.executable, "-m", "nox", "--envdir", str(ROOT / ".nox"), "--session", session]
    done = subprocess.run(
        command, cwd=clone, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_a_machine_without_uv_is_not_told_so(clone: Path) -> None:
    """It needs none: the line would stand above everything that is typed."""
    with (clone / "noxfile.py").open("a", encoding="utf-8") as file:
        file.write(NOTHING)
    said = nox(clone, "nothing", UV="/nowhere/uv")
    assert [line for line in said.splitlines() if "uv" in line] == []
    assert "Session nothing was successful" in said


def test_format_mends_what_lint_would_refuse(clone: Path) -> None:
    """Layout, and what ruff can fix by itself: here an import that nobody uses."""
    (clone / "untidy.py").write_text('"""A module."""\nfrom __future__ import annotations\nimport os\nX = {"a":1}\n')
    nox(clone, "format")
    assert (clone / "untidy.py").read_text() == (
        '"""A module."""\n\nfrom __future__ import annotations\n\nX = {"a": 1}\n'
    )
