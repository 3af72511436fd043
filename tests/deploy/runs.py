"""Runs of the pipeline as processes: how a run ended, and a run in progress."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.deploy.machine import wait_until

__all__ = ["Deploy", "Outcome", "newest"]


def newest(records: Path) -> int:
    """Return the number of the newest record in a folder, 0 if there is none."""
    return max((int(path.name) for path in records.glob("*") if path.name.isdigit()), default=0)


@dataclass(frozen=True)
class Outcome:
    """How one run of the pipeline ended. `report` is its JSON document, {} if it printed none."""

    code: int
    report: dict[str, Any]
    stdout: str
    stderr: str
    seconds: float

    @property
    def verdict(self) -> str:
        """The report's verdict."""
        return str(self.report.get("verdict"))

    @property
    def release(self) -> str:
        """The release that the report is about."""
        return str(self.report["release"])

    @property
    def reason(self) -> str:
        """The report's one-line reason."""
        reason = str(self.report.get("reason"))
        assert "\n" not in reason
        return reason

    @property
    def traffic(self) -> dict[str, Any]:
        """The traffic that the proof sent, and what became of it."""
        traffic: dict[str, Any] = self.report["traffic"]
        return traffic

    def problems(self) -> list[str]:
        """Return the lines on standard error that say what is wrong."""
        return [line.removeprefix("✗ ") for line in self.stderr.splitlines()
                if line.startswith("✗ ") and not re.match(r"✗ \S.{8,} +\d+\.\d s", line)]  # fmt: skip

    def __str__(self) -> str:
        ended = f"exit code {self.code} after {self.seconds:.1f} s: {self.verdict}"
        return f"{ended} ({self.report.get('reason')})\n{self.stderr}"


@dataclass
class Deploy:
    """A run of the pipeline in progress, in a process group of its own as in a terminal."""

    process: subprocess.Popen[bytes]
    files: tuple[Path, Path]  # of its standard output and error
    records: Path
    known: int  # the newest record when it began
    started: float = field(default_factory=time.monotonic)

    def wait_for(self, true: Callable[[], object], what: str, seconds: float = 90) -> None:
        """Wait until `true()`; fail at once if the run ends before."""

        def found() -> bool:
            if true():
                return True
            assert self.process.poll() is None, f"it ended before {what}: {self.finish()}"
            return False

        wait_until(found, f"no {what}: {self.said()}", seconds)

    def wait_for_stage(self, *stages: str) -> None:
        """Wait until its record says that one of `stages` began."""
        self.wait_for(lambda: self.stage() in stages, f"stage {' or '.join(stages)}")

    def stage(self) -> str | None:
        """Return the stage that its record names."""
        return self._begun().get("stage")

    def release(self) -> str:
        """Return the release that its record names; "?" before it was built."""
        return self._begun().get("release") or "?"

    def _begun(self) -> dict[str, str | None]:
        number = newest(self.records)
        path = self.records / str(number) / "begun.json"
        begun: dict[str, str | None] = json.loads(path.read_text()) if number > self.known and path.exists() else {}
        return begun

    def said(self) -> str:
        """Return its standard error until now."""
        return self.files[1].read_text(encoding="utf-8")

    def family(self) -> list[psutil.Process]:
        """Return the processes that it started and that still depend on it."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def send(self, number: signal.Signals, *, group: bool = True) -> None:
        """Send a signal to the whole group, as a terminal does, or without `group` to the process alone."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it while the block runs; it keeps what it holds."""
        self.send(signal.SIGSTOP, group=False)
        try:
            yield
        finally:
            self.send(signal.SIGCONT, group=False)

    def kill(self) -> None:
        """Kill the deploy itself with `kill -9`. The processes that depended on it must end soon."""
        with self.paused():  # listing all processes takes longer than some stages
            family = self.family()
            self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, f"it had ended already: {self.said()}"
        _, alive = psutil.wait_procs(family, timeout=60)  # a docker client ends with its build
        assert not alive, f"outlived the deploy: {[one.cmdline() for one in alive]}"

    def finish(self, seconds: float = 180) -> Outcome:
        """Wait for its end, and kill it after `seconds`."""
        # If it stayed, its lock would fail every test after this one.
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"it did not end within {seconds:.0f} s:\n{self.said()}")
        stdout, stderr = (file.read_text(encoding="utf-8") for file in self.files)
        # Not lines of JSON, as `logs` prints them.
        document = json.loads(stdout) if stdout.startswith(("{\n", "[")) else {}
        return Outcome(code, document, stdout, stderr, time.monotonic() - self.started)
