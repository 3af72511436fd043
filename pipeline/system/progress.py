"""The output of a running deploy: a live line on a terminal, plain lines in CI; always on standard error."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status
from rich.text import Text

from pipeline.errors import Interrupted

__all__ = ["Progress", "StageRecord", "tame"]

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


@dataclass
class Progress:
    """The progress of a deploy, shown to people; `stages` collects what the report needs."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    stages: list[StageRecord] = field(default_factory=list)
    _status: Status | None = None
    _last_live: float = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageRecord]:
        """Time a stage and print how it ended; an exception of the body passes through."""
        record = StageRecord(name=name, at=time.time())
        started = time.monotonic()
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

    def say(self, line: str) -> None:
        """Print one line that stays, dimmed on a terminal if it is a command or its output."""
        quiet = line.startswith(("$ ", "  "))
        text = Text(tame(f"    {line}"), "dim" if quiet else "")
        one_line = quiet and self.console.is_terminal
        self.console.print(text, soft_wrap=not one_line, overflow="ellipsis" if one_line else None, no_wrap=one_line)

    def warn(self, *lines: str) -> None:
        """Print lines that the reader should not miss."""
        for line in lines:
            self.console.print(Text.assemble(("    ! ", "bold yellow"), tame(line)), soft_wrap=True)

    def problem(self, *lines: str) -> None:
        """Print lines that say what is wrong and how to fix it."""
        for line in lines:
            self.console.print(Text.assemble((f"{BAD} ", "bold red"), tame(line)), soft_wrap=True)

    def live(self, name: str, line: str) -> None:
        """Show where the stage `name` stands now: redrawn on a terminal, printed every few seconds elsewhere."""
        if self._status:
            self._status.update(Text.assemble((name, "bold"), f"  {line}"))
        elif time.monotonic() - self._last_live > PLAIN_LIVE_SECONDS:
            self._last_live = time.monotonic()
            self.console.print(tame(f"    {line}"), markup=False, soft_wrap=True)

    def _begin(self, name: str) -> None:
        if self.console.is_terminal:
            self._status = self.console.status(Text(name, "bold"))
            self._status.start()
        else:
            self.console.print(f"{name} …", markup=False)

    def _ended(self, record: StageRecord) -> None:
        sign, colour = (GOOD, "green") if record.outcome in ("ok", "skipped") else (BAD, "red")
        note = f"  {tame(record.note)}" if record.note else ""
        self.console.print(
            Text.assemble(
                (f"{sign} ", f"bold {colour}"), (f"{record.name:<9}", "bold"), f" {record.seconds:6.1f} s", note
            ),
            soft_wrap=True,
        )
