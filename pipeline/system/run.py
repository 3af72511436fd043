"""The one place that runs a command: printed first, its output kept, a failure typed."""

from __future__ import annotations

import logging
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

from pipeline.errors import SlipwayError
from pipeline.system.waiting import wait_within

__all__ = ["CommandFailed", "run"]

log = logging.getLogger(__name__)

READ_SECONDS = 5


class CommandFailed(SlipwayError):
    """A command that ended with a code other than 0.

    `output` is its standard error, or its output if that is empty; `said` is its output.
    """

    def __init__(self, command: Sequence[str], code: int, output: str, said: str = "") -> None:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
        super().__init__(f"{Path(command[0]).name} failed ({code}): {last}")
        self.code, self.output, self.said = code, output, said


def run(
    command: Sequence[str],
    *,
    level: int = logging.INFO,
    output_level: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    given: str | None = None,
    grace: float = 0,
    told: Callable[[str], None] | None = None,
    progress: Callable[[str], None] | None = None,
    secret: bool = False,
) -> str:
    """Run `command` and return its standard output; log the command, and its standard error when it has ended.

    `level` is that of the log, `output_level` that of the standard error where it differs. `timeout` is in seconds.
    `given` is the standard input, for what must not appear in a list of processes. `told` is called with each line of
    the standard output when it comes, `progress` with each of the standard error, which is not logged then; both may
    raise. A command that is given up, because of that, because time is up or the deploy is interrupted, gets SIGTERM
    and `grace` seconds to end by itself. `secret`: no message has the standard output.

    Raise `CommandFailed` where the command ends with a code other than 0, `SlipwayError` where time is up.
    """
    log.log(level, "$ %s", _shown(command))
    options: dict[str, Any] = {
        "env": env,
        "cwd": cwd,
        "text": True,
        "errors": "replace",
        "stdin": subprocess.DEVNULL if given is None else subprocess.PIPE,
    }
    if told or progress or grace:
        heard = [told or (lambda _: None), progress or (lambda line: log.log(output_level or level, "  %s", line))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
            return _listen(command, process, heard, timeout=timeout, grace=grace, given=given)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        out, err = _finish(command, process, timeout=timeout, given=given)
    for line in err.splitlines():
        log.log(level if output_level is None else output_level, "  %s", line)
    if process.returncode:
        raise CommandFailed(command, process.returncode, err if secret else err or out, out)
    return out


def _finish(
    command: Sequence[str], process: subprocess.Popen[str], *, timeout: float | None, given: str | None
) -> tuple[str, str]:
    """Return the two outputs of the `process` of a `command`, which is killed where it is not waited for to its end."""
    inputs = [given]

    def communicate(*, timeout: float | None) -> tuple[str, str]:
        return process.communicate(inputs.pop() if inputs else None, timeout)

    try:
        return wait_within(timeout, communicate)
    except BaseException as error:
        process.kill()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise SlipwayError(f"{Path(command[0]).name} did not end within {timeout:.0f} s") from None


def _listen(
    command: Sequence[str],
    process: subprocess.Popen[str],
    heard: Sequence[Callable[[str], None]],
    *,
    timeout: float | None,
    grace: float,
    given: str | None,
) -> str:
    """Wait for the `process` of a `command`, with a function for the lines of each of its two outputs; see `run`."""
    said: tuple[list[str], list[str]] = ([], [])
    raised: list[BaseException] = []

    def write() -> None:
        if process.stdin:
            with suppress(BrokenPipeError), process.stdin:  # it may end without having read it
                process.stdin.write(given or "")

    streams = (process.stdout, process.stderr)
    hearers = [(process, stream, lines, hear, raised) for stream, lines, hear in zip(streams, said, heard, strict=True)]
    readers = [Thread(target=_read, args=each, daemon=True) for each in hearers]
    for thread in (*readers, Thread(target=write, daemon=True)):
        thread.start()
    try:
        wait_within(timeout, process.wait)
    except BaseException as error:
        _end(process, grace)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise SlipwayError(f"{Path(command[0]).name} did not end within {timeout:.0f} s") from None
    finally:
        for reader in readers:
            reader.join(READ_SECONDS)  # a child of the process may hold its output open
    if raised:
        raise raised[0]
    out, err = ("".join(lines) for lines in said)
    if process.returncode:
        raise CommandFailed(command, process.returncode, err or out, out)
    return out


def _read(
    process: subprocess.Popen[str],
    stream: IO[str] | None,
    lines: list[str],
    hear: Callable[[str], None],
    raised: list[BaseException],
) -> None:
    """Keep the lines of `stream`, and let each be heard; what that raises ends the `process`, and goes to `raised`."""
    for line in stream or ():
        lines.append(line)
        try:
            if not raised:
                hear(line.rstrip("\n"))
        except BaseException as error:  # noqa: BLE001 - raised again where the process is waited for
            raised.append(error)
            process.terminate()


def _end(process: subprocess.Popen[str], grace: float) -> None:
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _shown(command: Sequence[str]) -> str:
    """Return `command` as a shell takes it, with paths of the project as people write them: from its folder."""
    # Not within a longer path, an image or an address; what follows a colon is a path in a container.
    return re.sub(rf"(?<![\w.:/-]){re.escape(str(Path.cwd()))}/", "", shlex.join(command))
