"""When the next backup is due, what is said where one is missing, and the process that makes them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.backups.schedule import Ended, Times, ended_last, next_time, overdue
from tests.backend.process import wait_until

NIGHT = Times.read("03:00")
NOW = datetime(2026, 11, 28, 16, 0, tzinfo=UTC)
SERVE = (
    "import sys; from pathlib import Path; from backend.backups.schedule import *; serve(Path({!r}), {}, print, {!r})"
)


def ended(hours: float, code: int = 0) -> Ended:
    """A backup of so many hours ago."""
    return Ended((NOW - timedelta(hours=hours)).isoformat(), code, "S3 is away" if code else "")


class TestTimes:
    def test_come_in_their_order(self) -> None:
        """However they were written; the last one of a day is followed by the first of the next."""
        times = Times.read("15:30 03:00")
        assert str(times) == "03:00 15:30"
        assert times.after(NOW) == datetime(2026, 11, 29, 3, tzinfo=UTC)
        assert times.after(NOW - timedelta(hours=2)) == datetime(2026, 11, 28, 15, 30, tzinfo=UTC)
        assert times.after(datetime(2026, 12, 31, 23, tzinfo=UTC)) == datetime(2027, 1, 1, 3, tzinfo=UTC)

    @pytest.mark.parametrize("text", ["", "3:00", "24:00", "03:60", "03:00,15:00", "daily"])
    def test_are_refused_where_they_are_none(self, text: str) -> None:
        """With an example."""
        with pytest.raises(ValueError, match="must be times of the day in UTC, such as `03:00`"):
            Times.read(text)


class TestNextTime:
    def test_is_now_for_the_first(self) -> None:
        """Whoever switches backups on has one."""
        assert next_time(NIGHT, None, NOW) == NOW

    def test_is_the_next_of_the_times(self) -> None:
        """That follow the last one; one that was missed is due."""
        assert next_time(NIGHT, ended(13), NOW) == datetime(2026, 11, 29, 3, tzinfo=UTC)
        assert next_time(NIGHT, ended(37), NOW) < NOW

    def test_comes_soon_after_a_failure(self) -> None:
        """And not at once, again and again."""
        assert next_time(NIGHT, ended(0.1, 1), NOW) == NOW + timedelta(minutes=9)

    def test_is_now_where_the_clock_was_wrong(self) -> None:
        """A backup of tomorrow would keep all others from being made."""
        assert next_time(NIGHT, ended(-30), NOW) == NOW


class TestOverdue:
    def test_says_nothing_of_one_that_is_not(self) -> None:
        """Nor while the first is made, nor in the hour in which the next one is."""
        for last in (None, ended(13), ended(36.5)):
            assert overdue(NIGHT, last, NOW - timedelta(hours=12) if last == ended(36.5) else NOW) is None

    def test_says_since_when_one_is_missing(self) -> None:
        """And when it was due."""
        said = overdue(NIGHT, ended(37), NOW)
        assert (
            said == "the last backup began at 2026-11-27T03:00:00+00:00, and the next one was due at 2026-11-28T03:00Z"
        )

    def test_says_why_the_last_one_failed(self) -> None:
        """As the program said it."""
        assert overdue(NIGHT, ended(1, 1), NOW) == "the backup of 2026-11-28T15:00:00+00:00 failed: S3 is away"


class TestServe:
    def started(self, folder: Path, script: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script]
        times = "Times.read('03:00')"
        return subprocess.Popen(
            [sys.executable, "-u", "-c", SERVE.format(str(folder), times, command)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def test_makes_the_first_one_and_waits(self, tmp_path: Path) -> None:
        """A second process, as after a restart, makes none."""
        script = f"import pathlib; pathlib.Path({str(tmp_path)!r}, 'made').open('a').write('x')"
        for _ in range(2):
            with self.started(tmp_path, script) as process:
                assert process.stdout
                assert "the next backup is due at" in process.stdout.readline()
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
        assert (tmp_path / "made").read_text() == "x"
        last = ended_last(tmp_path)
        assert last
        assert (last.code, last.said) == (0, "")

    def test_keeps_why_one_failed(self, tmp_path: Path) -> None:
        """The last line of its standard error, which is handed on whole."""
        script = "import sys; sys.exit('dumping\\nBACKUP_FOLDER: full')"
        with self.started(tmp_path, script) as process:
            wait_until(lambda: ended_last(tmp_path) is not None, "it kept nothing")
            process.send_signal(signal.SIGTERM)
            assert "dumping\nBACKUP_FOLDER: full\n" in process.communicate(timeout=20)[1]
        last = ended_last(tmp_path)
        assert last
        assert (last.code, last.said) == (1, "BACKUP_FOLDER: full")

    def test_keeps_what_is_wrong_with_a_whole_one(self, tmp_path: Path) -> None:
        """It is here, and its copy is not off the host: the program says so in the object that it prints last."""
        script = 'import sys; print(\'{"backup": {}, "problem": "S3 is away"}\'); sys.exit(1)'
        with self.started(tmp_path, script) as process:
            wait_until(lambda: ended_last(tmp_path) is not None, "it kept nothing")
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        last = ended_last(tmp_path)
        assert last
        assert last.said == "S3 is away"

    def test_ends_the_one_that_runs(self, tmp_path: Path) -> None:
        """Which removes what it began; nothing is kept of it, so that the next start makes one."""
        begun, gone = tmp_path / "begun", tmp_path / "gone"
        script = (
            "import pathlib, signal, sys, time\n"
            f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(gone)!r}).touch(), sys.exit(1)))\n"
            f"pathlib.Path({str(begun)!r}).touch()\ntime.sleep(60)"
        )
        with self.started(tmp_path, script) as process:
            wait_until(begun.exists, "it did not begin")
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(20) == 0
        assert gone.exists()
        assert ended_last(tmp_path) is None

    def test_a_broken_record_is_none(self, tmp_path: Path) -> None:
        """Of a disk that was full, of another version, of a hand."""
        for text in ("", "{", "[]", json.dumps({"started": "soon", "code": 0, "said": ""})):
            (tmp_path / "schedule.json").write_text(text)
            assert ended_last(tmp_path) is None
