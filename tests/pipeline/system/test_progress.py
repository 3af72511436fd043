"""What people see of a deploy: its log, on a terminal and in CI."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from pipeline.system.progress import LogDisplay, Progress

COMMAND = "$ docker compose --project-name slipway up --detach --wait"


def shown(level: int, line: str, *, terminal: bool = False) -> str:
    """Return what is printed for a message, on a console of 40 columns."""
    console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system=None, highlight=False)
    LogDisplay(console).emit(logging.LogRecord("pipeline", level, "", 0, line, None, None))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestLogDisplay:
    def test_keeps_a_command_to_one_line_on_a_terminal(self) -> None:
        """In CI it is whole: it can be copied, and nobody has to scroll past it."""
        assert shown(logging.INFO, COMMAND, terminal=True) == "    $ docker compose --project-name sli…\n"
        assert shown(logging.INFO, COMMAND) == f"    {COMMAND}\n"

    def test_marks_what_must_not_be_missed(self) -> None:
        """Warnings and errors have a sign, and neither is cut."""
        assert shown(logging.WARNING, COMMAND, terminal=True) == f"    ! {COMMAND}\n"
        assert shown(logging.ERROR, COMMAND, terminal=True) == f"✗ {COMMAND}\n"

    def test_lets_no_line_command_github(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A program's output may contain any text."""
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert not shown(logging.INFO, "  ::add-mask::x").lstrip().startswith("::")


def test_one_log_is_shown() -> None:
    """However often a command begins in this process, a line is printed once."""
    logger = logging.getLogger("pipeline")
    before, level = list(logger.handlers), logger.level
    console = Console(file=io.StringIO(), width=80)
    try:
        for _ in range(2):
            Progress(console).show_log()
        logging.getLogger("pipeline.targets").info("once")
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "    once\n"
