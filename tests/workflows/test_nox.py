"""noxfile.py as nox runs it: what it prints, the environments that it makes, the sessions that change files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTHING = '''

@nox.session
def nothing(session: nox.Session) -> None:
    """Do nothing."""
'''


# A session whose environment is made in seconds: of the smallest lock.
SMALL = '''

@nox.session
def small(session: nox.Session) -> None:
    """Say which Python has the packages of the group `uv`."""
    run(environment(session, "uv"), "-c", "import sys; print('python', sys.prefix)")
'''


@pytest.fixture(name="clone")
def _clone(tmp_path: Path) -> Path:
    """Return a folder with noxfile.py and what its sessions read."""
    return copied(tmp_path)


@pytest.fixture(name="fresh", scope="module")
def _fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return such a folder with the session `small` and environments of its own, which the module's tests share."""
    folder = copied(tmp_path_factory.mktemp("fresh"))
    with (folder / "noxfile.py").open("a", encoding="utf-8") as file:
        file.write(SMALL)
    return folder


def copied(folder: Path) -> Path:
    """Copy noxfile.py and what its sessions read to `folder`, and return that."""
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    return folder


def start(clone: Path, session: str, envdir: Path, **environ: str) -> subprocess.Popen[str]:
    """Start `session` in `clone` with the environments in `envdir`."""
    command = [sys.executable, "-m", "nox", "--envdir", str(envdir), "--session", session]
    return subprocess.Popen(
        command,
        cwd=clone,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Return all that a session printed, which must have been successful."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def nox(clone: Path, session: str, **environ: str) -> str:
    """Run `session` in `clone` with the environments of this repository; return all that was printed."""
    return finish(start(clone, session, ROOT / ".nox", **environ))


def small(fresh: Path) -> str:
    """Run the session `small` with the environments of its own folder; return all that was printed."""
    return finish(start(fresh, "small", fresh / ".nox"))


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


class TestAnEnvironment:
    def test_is_made_by_one_of_two_sessions_in_a_fresh_clone(self, fresh: Path) -> None:
        """The other one waits for it, and both find it whole."""
        shutil.rmtree(fresh / ".nox", ignore_errors=True)
        both = [finish(one) for one in [start(fresh, "small", fresh / ".nox") for _ in range(2)]]
        assert [said.count("\npython ") for said in both] == [1, 1], both
        assert sorted("-m virtualenv" in said for said in both) == [False, True], both

    def test_that_a_killed_session_left_half_made_is_made_anew(self, fresh: Path) -> None:
        """Every later session, `down` and `rollback` among them, would otherwise end with pip's traceback."""
        shutil.rmtree(fresh / ".nox", ignore_errors=True)
        process = start(fresh, "small", fresh / ".nox")
        while not list(fresh.glob(".nox/uv/lib/*/site-packages/pip/_internal")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert "\npython " in small(fresh)

    def test_is_left_alone_while_it_is_whole(self, fresh: Path) -> None:
        """Even where its folder cannot be written: nothing is installed, and nothing is waited for."""
        small(fresh)
        (fresh / ".nox/uv.lock").unlink()
        assert "-m virtualenv" not in small(fresh)
        assert not (fresh / ".nox/uv.lock").exists()

    def test_whose_python_was_upgraded_is_made_anew(self, fresh: Path) -> None:
        """`bin/python` of another minor version starts, and looks for its packages in another folder."""
        small(fresh)
        [packages] = (fresh / ".nox/uv/lib").iterdir()
        packages.rename(packages.with_name("python3.2"))
        assert "the Python of .nox/uv was removed or upgraded: making it anew" in small(fresh)

    def test_whose_python_was_removed_is_made_anew(self, fresh: Path) -> None:
        """Its `bin/python` leads nowhere."""
        small(fresh)
        python = fresh / ".nox/uv/bin/python"
        python.unlink()
        python.symlink_to("/nowhere/python3")
        assert "the Python of .nox/uv was removed or upgraded: making it anew" in small(fresh)
