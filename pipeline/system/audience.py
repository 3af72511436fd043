"""Whether anybody watches a deploy: what it said is kept, and it goes on when its terminal or its reader is gone."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

__all__ = ["Transcript", "do_without_audience", "signals_heard"]


class Transcript:
    """What was said, each line with its time (UTC): in memory until it has a file to be kept in."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._path: Path | None = None

    def add(self, text: str) -> None:
        """Add the lines of `text`. A file that cannot be written any more costs the lines, never the deploy."""
        at = f"{datetime.now(UTC):%H:%M:%S}"
        self._said += [f"{at} {line}\n" for line in text.splitlines()]
        if self._path is None:
            return
        lines, self._said = self._said, []
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8", errors="replace") as file:
            file.writelines(lines)

    def keep(self, path: Path) -> None:
        """Write what was said so far, and what is said from now on, to `path`."""
        self._path = path
        self.add("")


class _Forgiving(io.TextIOBase):
    """A stream that goes nowhere once nobody can read it: a pipe that was closed, a terminal that is gone."""

    def __init__(self, stream: TextIO, tell: Callable[[str], None]) -> None:
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override] # rich asks for it, to know which characters it may print
        return self._stream.encoding

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._tell(f"nobody reads {self._stream.name} any more ({error.strerror}): going on")


def do_without_audience(transcript: Transcript) -> None:
    """Let what runs from now on go on when nobody watches it any more.

    Output that cannot be written is dropped, and `transcript` says so. SIGHUP is ignored, by the commands that are run,
    too, which inherit that.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout, sys.stderr = _Forgiving(sys.stdout, transcript.add), _Forgiving(sys.stderr, transcript.add)


def signals_heard() -> list[signal.Signals]:
    """Return the signals that stop us: SIGHUP is none where it is ignored, by us or by `nohup`."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hung_up]
