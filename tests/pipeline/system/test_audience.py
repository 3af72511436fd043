"""What becomes of a command that nobody watches any more, and of what it says."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.system.audience import Transcript, signals_heard

ROOT = Path(__file__).parents[3]

# Says a line, waits until somebody is gone, says more by all ways there are, and runs a command.
SCRIPT = """
import os, signal, subprocess, sys, time
from pathlib import Path
from rich.console import Console
from pipeline.system.audience import Transcript, do_without_audience

log, gone = map(Path, sys.argv[1:])
transcript = Transcript()
do_without_audience(transcript)
print("first", file=sys.stderr, flush=True)
while not gone.exists():
    time.sleep(0.01)
for _ in range(3):
    print("more", flush=True)
    Console(stderr=True).print("more")
with Console(stderr=True).status("drawn by a thread"):
    time.sleep(0.3)
transcript.keep(log)
ask = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout
transcript.add(f"a command ignores SIGHUP: {said.strip()}")
"""


def command(folder: Path) -> list[str]:
    """Return the command that runs the script in `folder`."""
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, str(folder / "script.py"), str(folder / "log"), str(folder / "gone")]


def said(folder: Path) -> list[str]:
    """Return what the script's transcript has, without the times."""
    lines = (folder / "log").read_text().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


class TestDoWithoutAudience:
    def test_goes_on_when_its_reader_leaves(self, tmp_path: Path) -> None:
        """As `head -1` does: what it says next has no reader, and is no reason to stop."""
        read, write = os.pipe()
        process = subprocess.Popen(
            command(tmp_path), stdout=write, stderr=write, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        os.close(write)
        assert os.read(read, 5) == b"first"
        os.close(read)
        (tmp_path / "gone").touch()
        assert process.wait(60) == 0
        assert sorted(said(tmp_path)) == [
            "a command ignores SIGHUP: True",
            "nobody reads <stderr> any more (Broken pipe): going on",
            "nobody reads <stdout> any more (Broken pipe): going on",
        ]

    def test_goes_on_when_its_terminal_is_closed(self, tmp_path: Path) -> None:
        """A closed window or a lost connection: SIGHUP, and an error for each line that is written."""
        pid, terminal = pty.fork()
        if not pid:
            os.environ["PYTHONPATH"] = str(ROOT)
            program, *arguments = command(tmp_path)
            os.execv(program, [program, *arguments])
        while b"first" not in os.read(terminal, 100):
            continue
        os.close(terminal)
        (tmp_path / "gone").touch()
        deadline = time.monotonic() + 60
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        assert said(tmp_path)[0].endswith("any more (Input/output error): going on")
        assert said(tmp_path)[-1] == "a command ignores SIGHUP: True"


class TestSignalsHeard:
    @pytest.mark.parametrize("ignored", [False, True])
    def test_are_those_that_nobody_ignores(self, ignored: bool) -> None:
        """`nohup nox -s deploy` has SIGHUP ignored before Python starts."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        try:
            assert (signal.SIGHUP in signals_heard()) is not ignored
        finally:
            signal.signal(signal.SIGHUP, before)


class TestTranscript:
    def test_keeps_what_was_said_before_it_had_a_file(self, tmp_path: Path) -> None:
        """A deploy has no folder before its plan is made."""
        transcript = Transcript()
        transcript.add("plan\nmore")
        transcript.keep(tmp_path / "log")
        transcript.add("build")
        assert said(tmp_path) == ["plan", "more", "build"]

    def test_without_a_file_that_can_be_written_it_says_nothing(self, tmp_path: Path) -> None:
        """A full disk costs the lines, not the deploy."""
        transcript = Transcript()
        transcript.keep(tmp_path / "nowhere/log")
        transcript.add("build")
        if Path("/dev/full").exists():
            transcript.keep(Path("/dev/full"))
            transcript.add("check")
