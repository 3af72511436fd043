"""One deploy at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import LockHeld
from pipeline.releases.lock import held_by, hold_lock
from tests.logs import logged

HOLDER = (
    "import sys; from pathlib import Path; from pipeline.releases.lock import hold_lock\n"
    "with hold_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def hold_elsewhere(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock, and says `held` once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        text=True,
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


class TestHoldLock:
    def test_refuses_a_second_holder_and_names_the_first(self, tmp_path: Path) -> None:
        """Who comes second learns who is at it, where, as which process and since when; exit code 75."""
        path = tmp_path / "lock"
        with hold_elsewhere(path) as other:
            with pytest.raises(LockHeld, match=rf"\(pid {other.pid}\) since 20") as caught, hold_lock(path):
                pytest.fail("two holders")
            assert caught.value.exit_code == 75
            holder = held_by(path)
            assert holder is not None
            assert holder.pid == other.pid
            other.communicate("")

    def test_takes_over_from_a_killed_holder_and_says_so(self, tmp_path: Path) -> None:
        """A lock dies with its holder; the note it leaves is read out."""
        path = tmp_path / "lock"
        with hold_elsewhere(path) as other:
            os.kill(other.pid, signal.SIGKILL)
            other.wait()
        with logged() as said, hold_lock(path):
            assert [f"(pid {other.pid})" in line and "died" in line for line in said] == [True]
            assert json.loads(path.read_text())["pid"] == os.getpid()

    def test_leaves_no_file(self, tmp_path: Path) -> None:
        """A lock that was released is gone, and held by nobody."""
        path = tmp_path / "lock"
        with logged() as said, hold_lock(path):
            assert path.exists()
        assert said == []
        assert not path.exists()
        assert held_by(path) is None

    def test_reads_a_note_that_was_cut_short(self, tmp_path: Path) -> None:
        """A holder that died while it wrote its note is somebody."""
        path = tmp_path / "lock"
        path.write_text('{"holder": "a')
        with logged() as said, hold_lock(path):
            assert "somebody" in said[0]
