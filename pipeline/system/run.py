"""The one place that runs a command: printed first, its output kept, a failure typed."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import SlipwayError

__all__ = ["CommandFailed", "run"]

log = logging.getLogger(__name__)


class CommandFailed(SlipwayError):
    """A command that ended with a code other than 0; `output` is its standard error, or its output if that is empty."""

    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
        super().__init__(f"{Path(command[0]).name} failed ({code}): {last}")
        self.code, self.output = code, output


def run(
    command: Sequence[str],
    *,
    level: int = logging.INFO,
    output_level: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    given: str | None = None,
) -> str:
    """Run `command` and return its standard output; log the command, and its standard error when it has ended.

    `level` is that of the log, `output_level` that of the standard error where it differs. `timeout` is in seconds.
    `given` is the standard input, for what must not appear in a list of processes. Raise `CommandFailed` where the
    command ends with a code other than 0, `SlipwayError` where time is up.
    """
    log.log(level, "$ %s", _shown(command))
    try:
        done = subprocess.run(
            command,
            env=env,
            cwd=cwd,
            timeout=timeout,
            check=False,
            **({"stdin": subprocess.DEVNULL} if given is None else {"input": given}),
            capture_output=True,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise SlipwayError(f"{Path(command[0]).name} did not end within {timeout:.0f} s") from None
    for line in done.stderr.splitlines():
        log.log(level if output_level is None else output_level, "  %s", line)
    if done.returncode:
        raise CommandFailed(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    """Return `command` as a shell takes it, with paths of the project as people write them: from its folder."""
    # Not within a longer path, an image or an address; what follows a colon is a path in a container.
    return re.sub(rf"(?<![\w.:/-]){re.escape(str(Path.cwd()))}/", "", shlex.join(command))
