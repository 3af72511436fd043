"""The step that runs a session: what it passes on, what it gives back, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workflows.flows import ROOT

pytestmark = pytest.mark.needs("nox")

DIGEST = f"sha256:{'a' * 64}"
NOXFILE = """
import os, pathlib, signal, sys, time
import nox

nox.options.default_venv_backend = "none"

@nox.session
def give(session):
    pathlib.Path("given").write_text(repr((session.posargs, os.environ.get("IMAGE_REPOSITORY"))))
    print("a line", *session.posargs[-1:], sep="\\n", flush=True)

@nox.session
def fail(session):
    print("DIGEST", flush=True)
    raise SystemExit(75)

@nox.session
def wait(session):
    def stop(*_):
        pathlib.Path("stopped").touch()
        raise SystemExit(130)
    signal.signal(signal.SIGTERM, stop)
    print("begun", flush=True)
    time.sleep(30)
"""


def start(folder: Path, session: str, arguments: str = "", **environ: str) -> subprocess.Popen[str]:
    """Start the step for a SESSION of a noxfile in FOLDER."""
    (folder / "noxfile.py").write_text(NOXFILE.replace("DIGEST", DIGEST))
    given = {"PATH": os.environ["PATH"], "SESSION": session, "ARGS": arguments, "GITHUB_OUTPUT": str(folder / "out")}
    command = [sys.executable, str(ROOT / ".github/actions/nox/run.py")]
    return subprocess.Popen(command, cwd=folder, env={**given, **environ}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip


def test_a_digest_in_the_last_line_is_an_output(tmp_path: Path) -> None:
    """With the repository in lower case, as registries want it; and all lines are shown."""
    step = start(tmp_path, "give", DIGEST, IMAGE_REPOSITORY="ghcr.io/Acme/App")
    output, _ = step.communicate(timeout=30)
    assert step.returncode == 0, output
    assert f"a line\n{DIGEST}\n" in output
    assert (tmp_path / "out").read_text().splitlines() == [
        "repository=ghcr.io/acme/app", f"digest={DIGEST}", f"reference=ghcr.io/acme/app@{DIGEST}"]  # fmt: skip
    assert (tmp_path / "given").read_text() == repr(([DIGEST], "ghcr.io/acme/app"))


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    """Quotes group; what would be a command is a word."""
    step = start(tmp_path, "give", '-k "not this" $(touch x) `touch x` ; touch x')
    step.communicate(timeout=30)
    words = ["-k", "not this", "$(touch", "x)", "`touch", "x`", ";", "touch", "x"]
    assert (tmp_path / "given").read_text() == repr((words, None))
    assert not (tmp_path / "x").exists()
    assert (tmp_path / "out").read_text() == "repository=\n"


def test_a_session_that_fails_fails_the_step(tmp_path: Path) -> None:
    """With its own exit code; what it printed last is no output."""
    step = start(tmp_path, "fail")
    step.communicate(timeout=30)
    assert step.returncode == 75
    assert "digest" not in (tmp_path / "out").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_runners_cancel_reaches_the_session(number: signal.Signals, tmp_path: Path) -> None:
    """A runner signals the step's process alone."""
    step = start(tmp_path, "wait")
    assert step.stdout is not None
    while "begun" not in step.stdout.readline():
        assert step.poll() is None
    started = time.monotonic()
    step.send_signal(number)
    step.communicate(timeout=30)
    assert (step.returncode, (tmp_path / "stopped").exists()) == (130, True)
    assert time.monotonic() - started < 10
