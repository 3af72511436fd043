"""What people see of a deploy: its log, on a terminal and in CI."""

from __future__ import annotations

import io
import logging
import threading

import pytest
from rich.console import Console, ConsoleRenderable, RenderHook

from pipeline.system.audience import Transcript
from pipeline.system.progress import LogDisplay, Progress

COMMAND = "$ docker compose --project-name slipway up --detach --wait"


def shown(level: int, line: str, *, terminal: bool = False) -> str:
    """Return what is printed for a message, on a console of 40 columns."""
    console = Console(file=io.StringIO(), width=40, force_terminal=terminal, color_system=None, highlight=False)
    LogDisplay(console, Transcript()).emit(logging.LogRecord("pipeline", level, "", 0, line, None, None))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Redrawn(RenderHook):
    """A line that is redrawn below what is printed: like rich's own, it has a lock."""

    def __init__(self) -> None:
        self.lock, self.asked = threading.RLock(), threading.Event()

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return what is printed, once the line is not being drawn."""
        self.asked.set()
        with self.lock:
            return renderables


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

    def test_lets_a_signal_be_answered_while_the_line_is_redrawn(self) -> None:
        """The answer is logged by the thread that draws, while another one that logs waits for the drawing."""
        console, line = Console(file=io.StringIO()), Redrawn()
        console.push_render_hook(line)
        display = LogDisplay(console, Transcript())
        record = logging.LogRecord("pipeline", logging.INFO, "", 0, "x", None, None)

        def draw() -> None:
            with line.lock:
                threading.Thread(target=display.handle, args=[record], daemon=True).start()
                line.asked.wait()
                display.handle(record)

        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        drawing.join(5)
        assert not drawing.is_alive()


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
