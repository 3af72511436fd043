"""Commands, as they are shown and run."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import Interrupted, SlipwayError
from pipeline.system.run import CommandFailed, run


class TestRun:
    def test_shows_the_projects_paths_from_its_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What only looks like one stays: a longer path, an image with the folder's name, a path in a container."""
        monkeypatch.chdir(tmp_path)
        caplog.set_level(logging.INFO)
        kept = [f"/mnt{tmp_path}/x", f"localhost:5001{tmp_path}/backend:1", f"volume:{tmp_path}/x"]
        run(["true", f"{tmp_path}/bin/python", f"--file={tmp_path}/my file", *kept])
        assert caplog.messages == [f"$ true bin/python '--file=my file' {' '.join(kept)}"]


WAITS = "import signal, sys, time\n{}\nprint('begun', flush=True)\ntime.sleep(50)"
ASKED = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('cancelled in the database'))"


class TestListening:
    def test_tells_each_line_when_it_comes(self) -> None:
        """Not when the command has ended; and returns them all."""
        seen: list[tuple[str, float]] = []
        script = "import time\nprint('one', flush=True)\ntime.sleep(1)\nprint('two')"
        done = run([sys.executable, "-c", script], told=lambda line: seen.append((line, time.monotonic())))
        assert done == "one\ntwo\n"
        [(first, early), (second, late)] = seen
        assert (first, second) == ("one", "two")
        assert late - early > 0.5

    def test_gives_a_standard_input_beside(self) -> None:
        """However long it is, and though the command answers before it has read it all."""
        seen: list[str] = []
        script = "import sys; print('begun', flush=True); print(len(sys.stdin.read()))"
        run([sys.executable, "-c", script], told=seen.append, given="x" * 2**20)
        assert seen == ["begun", str(2**20)]
        run([sys.executable, "-c", "print('not read')"], told=seen.append, given="x" * 2**20)
        assert seen[-1] == "not read"

    def test_a_failure_is_typed_all_the_same(self) -> None:
        """With the last line of its standard error."""
        with pytest.raises(CommandFailed, match=r"failed \(3\): why"):
            run([sys.executable, "-c", "import sys; print('out'); print('why', file=sys.stderr); sys.exit(3)"], grace=1)

    def test_asks_a_command_to_end_before_it_kills_it(self, caplog: pytest.LogCaptureFixture) -> None:
        """So that it can cancel what it has begun elsewhere; what it says then is heard."""
        with pytest.raises(SlipwayError, match="did not end within 3 s"):
            run([sys.executable, "-c", WAITS.format(ASKED)], timeout=3, grace=20, level=logging.WARNING)
        assert "cancelled in the database" in caplog.text

    def test_kills_one_that_does_not_listen(self) -> None:
        """Once its grace is over."""
        deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
        begun = time.monotonic()
        with pytest.raises(SlipwayError, match="did not end within 2 s"):
            run([sys.executable, "-c", WAITS.format(deaf)], timeout=2, grace=0.2)
        assert time.monotonic() - begun < 30

    def test_asks_it_when_the_deploy_is_interrupted(self, caplog: pytest.LogCaptureFixture) -> None:
        """The interruption goes on afterwards."""

        def interrupt(_: str) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

        def raise_it(*_: object) -> None:
            raise Interrupted

        before = signal.signal(signal.SIGUSR1, raise_it)
        try:
            with pytest.raises(Interrupted):
                run([sys.executable, "-c", WAITS.format(ASKED)], told=interrupt, grace=20, level=logging.WARNING)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert "cancelled in the database" in caplog.text

    def test_hands_on_progress_in_place_of_a_log(self, caplog: pytest.LogCaptureFixture) -> None:
        """What is on the standard output stays apart."""
        caplog.set_level(logging.DEBUG)
        seen: list[str] = []
        script = "import sys; print('half', file=sys.stderr); print('result')"
        assert run([sys.executable, "-c", script], progress=seen.append) == "result\n"
        assert seen == ["half"]
        assert "half\n" not in caplog.messages

    def test_ends_a_command_whose_listener_has_had_enough(self) -> None:
        """Who listens may raise: the command gets SIGTERM, and the error is that of the listener."""

        def refuse(line: str) -> None:
            raise SlipwayError(f"not {line}")

        begun = time.monotonic()
        with pytest.raises(SlipwayError, match="not begun"):
            run([sys.executable, "-c", WAITS.format(ASKED)], timeout=40, grace=20, told=refuse)
        aside = WAITS.format(ASKED).replace("flush=True", "flush=True, file=sys.stderr")
        with pytest.raises(SlipwayError, match="not begun"):
            run([sys.executable, "-c", aside], timeout=40, grace=20, progress=refuse)
        assert time.monotonic() - begun < 40

    def test_keeps_what_a_command_that_failed_had_printed(self) -> None:
        """Beside its complaint."""
        with pytest.raises(CommandFailed) as failed:
            run([sys.executable, "-c", "import sys; print('out'); sys.exit('why')"])
        assert (failed.value.said, failed.value.output) == ("out\n", "why\n")
