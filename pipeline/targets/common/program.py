"""A program of a release, `python -m MODULE`: as a container runs it, and how it failed."""

from __future__ import annotations

import shlex

from pipeline.errors import ProgramFailed
from pipeline.targets.common.diagnosis import telling_line

__all__ = ["SECONDS", "failure", "shell_script"]

SECONDS = 60
TIMED_OUT = "124|137"  # what `timeout` ends with, for a command that obeyed SIGTERM and for one that did not


def failure(module: str, output: str) -> ProgramFailed:
    """Return the error for a program that failed and has printed `output`."""
    return ProgramFailed(module, telling_line(output.splitlines()))


def shell_script(module: str, *arguments: str, seconds: int = SECONDS) -> str:
    """Return the script that runs the `module` with `arguments`, and ends it after so many `seconds`."""
    command = shlex.join(["timeout", "--kill-after=5", str(seconds), "python", "-m", module, *arguments])
    late = f"echo 'it did not end within {seconds} s' >&2"
    return f"{command} || {{ code=$?; case $code in {TIMED_OUT}) {late};; esac; exit $code; }}"
