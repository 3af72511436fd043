"""supervisord, for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.engines.embedded import find_engines
from pipeline.targets.local.layout import Layout, make_layout
from pipeline.targets.local.supervision import Supervisor, clean_environment, kill_strays, mark, program_config

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(name="supervisor")
def _supervisor(layout: Layout) -> Iterator[Supervisor]:
    supervisor = Supervisor(layout)
    supervisor.start(find_engines().supervisord)
    yield supervisor
    supervisor.shutdown()


def add(supervisor: Supervisor, name: str, command: list[str]) -> None:
    supervisor.add(name, program_config(name, command, directory=Path("/"), stop_seconds=1, priority=1))


class TestCleanEnvironment:
    def test_is_the_same_from_every_shell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is part of a replica's configuration: another PATH would restart every replica of the same release."""
        before = clean_environment(tmp_path)
        for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "ENVIRONMENT"):
            monkeypatch.setenv(name, "/elsewhere")
        assert clean_environment(tmp_path) == before
        assert all(folder.startswith("/") for folder in before["PATH"].split(":"))


class TestSupervisor:
    def test_starts_again_what_is_killed(self, supervisor: Supervisor) -> None:
        """A program that dies after it ran for its second comes back as another process."""
        add(supervisor, "sleeper", SLEEPER)
        eventually(lambda: supervisor.processes()["sleeper"].state == "RUNNING")
        first = supervisor.processes()["sleeper"].pid
        os.kill(first, signal.SIGKILL)
        eventually(lambda: supervisor.processes()["sleeper"].pid not in (0, first))

    def test_runs_a_command_to_the_letter(self, supervisor: Supervisor) -> None:
        """Spaces, quotes, percent and dollar signs of an argument arrive as they are."""
        said = "a b 'c' \"d\" 100%s $HOME"
        add(
            supervisor,
            "speaker",
            [sys.executable, "-c", "import sys, time; print(sys.argv[1], flush=True); time.sleep(600)", said],
        )
        log = supervisor.layout.log("speaker")
        eventually(lambda: log.exists() and log.read_text().strip() == said)

    def test_forgets_what_is_stopped(self, supervisor: Supervisor) -> None:
        """A stopped program is gone, file and process, and its name can be used again."""
        add(supervisor, "sleeper", SLEEPER)
        supervisor.stop("sleeper", lambda: None)
        assert supervisor.processes() == {}
        assert supervisor.names() == []
        add(supervisor, "sleeper", SLEEPER)
        assert list(supervisor.processes()) == ["sleeper"]

    def test_starts_everything_after_a_restart_of_the_machine(self, supervisor: Supervisor) -> None:
        """A new supervisord starts the programs whose files are there."""
        add(supervisor, "sleeper", SLEEPER)
        supervisor.shutdown()
        assert supervisor.processes() == {}
        supervisor.start(find_engines().supervisord)
        eventually(lambda: supervisor.processes()["sleeper"].state in ("STARTING", "RUNNING"))

    def test_is_told_nothing_of_our_environment(self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
        """No variable of the caller reaches a program, above all no secret."""
        supervisor.shutdown()
        monkeypatch.setenv("SERVICE_TOKEN", "canary")
        supervisor.start(find_engines().supervisord)
        add(
            supervisor,
            "speaker",
            [sys.executable, "-c", "import os, time; print(dict(os.environ), flush=True); time.sleep(600)"],
        )
        log = supervisor.layout.log("speaker")
        eventually(lambda: log.exists() and "SLIPWAY_HOME" in log.read_text())
        assert "canary" not in log.read_text()


class TestKillStrays:
    def test_ends_what_a_deploy_left_and_nothing_else(
        self, supervisor: Supervisor, layout: Layout, tmp_path: Path
    ) -> None:
        """A marked process outside the supervisor ends; a supervised one and another environment's go on."""
        add(supervisor, "sleeper", SLEEPER)
        # Orphans, as a killed deploy leaves them: not our children any more.
        start = (
            "import subprocess, sys\n"
            "print(subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid)"
        )
        pids = [
            int(
                subprocess.run(
                    [sys.executable, "-c", start, *SLEEPER],
                    env=mark(dict(os.environ), home),
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for home in (layout.home, tmp_path / "other")
        ]
        try:
            named = kill_strays(layout.home, supervisor.pid())
            assert [str(pids[0]) in name for name in named] == [True]
            assert supervisor.processes()["sleeper"].state in ("STARTING", "RUNNING")
            os.kill(pids[1], 0)
        finally:
            os.kill(pids[1], signal.SIGKILL)


class TestMakeLayout:
    def test_keeps_sockets_within_their_limit(self, tmp_path: Path) -> None:
        """A clone in a deep folder gets its sockets elsewhere, in a folder of its own."""
        deep = tmp_path / ("d" * 80) / "local"
        layout = make_layout(deep)
        assert not layout.run.is_relative_to(deep)
        assert len(str(layout.run)) < 80
        assert make_layout(deep.parent / "other").run != layout.run
