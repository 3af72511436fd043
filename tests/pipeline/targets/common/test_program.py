"""A program of a release in a container: its output, and its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from pipeline.targets.common.program import failure, shell_script

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(name="run")
def _run(tmp_path: Path) -> Run:
    """Run the script with a python that does SCRIPT."""

    def run(script: str, *, seconds: int = 60) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        command = shell_script("backend.synthetic", "remove", "--before", "now", seconds=seconds)
        command = command.replace("=5 ", "=0.2 ")
        path = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-ec", command], input="a\nb\n", env={"PATH": path}, capture_output=True, text=True, check=False
        )

    return run


class TestShellScript:
    def test_passes_on_what_goes_in_and_out(self, run: Run) -> None:
        """The ids, the arguments, the number."""
        done = run('echo "$@"; cat')
        assert (done.returncode, done.stdout, done.stderr) == (
            0,
            "-m backend.synthetic remove --before now\na\nb\n",
            "",
        )

    def test_fails_as_the_command_does(self, run: Run) -> None:
        """Its last words are its own."""
        done = run("echo no database >&2; exit 3")
        assert (done.returncode, done.stderr) == (3, "no database\n")

    @pytest.mark.parametrize("script", ["exec sleep 30", "trap '' TERM; while :; do sleep 0.1; done"])
    def test_ends_a_command_that_hangs(self, run: Run, script: str) -> None:
        """Also one that takes no hint."""
        done = run(script, seconds=1)
        assert done.returncode in (124, 137)
        assert done.stderr.splitlines()[-1] == "it did not end within 1 s"


def test_a_failure_is_told_by_the_last_line_that_says_something() -> None:
    """Above it are lines of Compose, or of a log that is no error."""
    output = ' Container shop-migrate-run-1  Created\nanna: the name is taken\n{"level": "info", "event": "bye"}\n\n'
    assert failure("backend.accounts", output).said == "anna: the name is taken"
    assert str(failure("backend.accounts", output)) == "python -m backend.accounts: anna: the name is taken"
