"""The command of a release that removes what the proof wrote, as a container runs it."""

from __future__ import annotations

import shlex

__all__ = ["SECONDS", "shell_script"]

SECONDS = 60
TIMED_OUT = "124|137"  # what `timeout` ends with, for a command that obeyed SIGTERM and for one that did not


def shell_script(*arguments: str, seconds: int = SECONDS) -> str:
    """Return the script that runs the command with `arguments`, and ends it after so many `seconds`."""
    command = shlex.join(["timeout", "--kill-after=5", str(seconds), "python", "-m", "backend.synthetic", *arguments])
    late = f"echo 'it did not end within {seconds} s' >&2"
    return f"{command} || {{ code=$?; case $code in {TIMED_OUT}) {late};; esac; exit $code; }}"
