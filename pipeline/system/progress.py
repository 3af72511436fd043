"""The output of a running deploy: a live line on a terminal, plain lines in CI; always on standard error."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status
from rich.text import Text

from pipeline.errors import Interrupted
from pipeline.system.audience import Transcript

__all__ = ["LogDisplay", "Progress", "StageRecord", "tame"]

PLAIN_LIVE_SECONDS = 5  # how often a long stage says where it stands if no line can be redrawn
GOOD, BAD = "✓", "✗"


def tame(text: str) -> str:
    """Return `text` so that no line of it is a command in the log of GitHub Actions; unchanged elsewhere."""
    # A service's own output may have lines such as `::add-mask::…` or `##[error]…`, which GitHub would obey.
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return text
    return re.sub(r"(?m)^(\s*)::", "\\1\u200b::", text).replace("##[", "##\u200b[")


@dataclass
class StageRecord:
    """One stage as it stands in the report; `at` is in seconds since the Unix epoch."""

    name: str
    at: float
    seconds: float = 0.0
    outcome: str = "running"  # ok, failed, interrupted, skipped
    note: str = ""


class LogDisplay(logging.Handler):
    """Shows the pipeline's log to people: what is done, what the reader should not miss, and what is wrong."""

    def __init__(self, console: Console, transcript: Transcript) -> None:
        super().__init__()
        self.console, self.transcript = console, transcript

    def handle(self, record: logging.LogRecord) -> bool:
        """Show `record`, without the lock that handlers have."""
        # The console has its own. A second Ctrl-C is answered by a line of the thread that redraws the live one: it
        # would wait here for another thread that waits for the redrawing.
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message; a command or its output is one dimmed line on a terminal."""
        line = tame(record.getMessage())
        if record.levelno >= logging.WARNING:
            sign = (f"{BAD} ", "bold red") if record.levelno >= logging.ERROR else ("    ! ", "bold yellow")
            self.console.print(Text.assemble(sign, line), soft_wrap=True)
            self.transcript.add(f"{sign[0]}{line}")
            return
        quiet = line.startswith(("$ ", "  "))
        cut = quiet and self.console.is_terminal
        text = Text(f"    {line}", "dim" if quiet else "")
        self.console.print(text, soft_wrap=not cut, overflow="ellipsis" if cut else None, no_wrap=cut)
        self.transcript.add(text.plain)


@dataclass
class Progress:
    """The progress of a deploy, shown to people; `stages` collects what the report needs."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    stages: list[StageRecord] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    _status: Status | None = None
    _last_live: float = 0.0
    # Times of one picture: a clock that somebody sets would move some of them.
    _epoch: float = field(default_factory=lambda: time.time() - time.monotonic())

    def show_log(self) -> None:
        """Show the pipeline's log on the console, from now on and in the place of any other."""
        logger = logging.getLogger("pipeline")
        logger.handlers[:] = [LogDisplay(self.console, self.transcript)]
        logger.setLevel(logging.INFO)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageRecord]:
        """Time a stage and print how it ended; an exception of the body passes through."""
        started = time.monotonic()
        record = StageRecord(name=name, at=self._epoch + started)
        self.stages.append(record)
        try:
            self._begin(name)
            yield record
            record.outcome = "ok" if record.outcome == "running" else record.outcome
        except Interrupted:
            record.outcome = "interrupted"
            raise
        except BaseException:
            record.outcome = "failed"
            raise
        finally:
            record.seconds = round(time.monotonic() - started, 3)
            if self._status:
                self._status.stop()
                self._status = None
            self._ended(record)

    def live(self, name: str, line: str) -> None:
        """Show where the stage `name` stands now: redrawn on a terminal, printed every few seconds elsewhere."""
        if self._status:
            self._status.update(Text.assemble((name, "bold"), f"  {line}"))
        if time.monotonic() - self._last_live > PLAIN_LIVE_SECONDS:
            self._last_live = time.monotonic()
            self.transcript.add(f"    {line}")
            if not self._status:
                self.console.print(tame(f"    {line}"), markup=False, soft_wrap=True)

    def _begin(self, name: str) -> None:
        self.transcript.add(f"{name} …")
        if self.console.is_terminal:
            self._status = self.console.status(Text(name, "bold"))
            self._status.start()
        else:
            self.console.print(f"{name} …", markup=False)

    def _ended(self, record: StageRecord) -> None:
        sign, colour = (GOOD, "green") if record.outcome in ("ok", "skipped") else (BAD, "red")
        note = f"  {tame(record.note)}" if record.note else ""
        text = Text.assemble(
            (f"{sign} ", f"bold {colour}"), (f"{record.name:<9}", "bold"), f" {record.seconds:6.1f} s", note
        )
        self.console.print(text, soft_wrap=True)
        self.transcript.add(text.plain)
