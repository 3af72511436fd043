"""Waiting by asking again, on a clock that the test controls."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import DeployFailed
from pipeline.system import waiting
from pipeline.system.waiting import Deadline, attempts

ROOT = Path(__file__).parents[3]


class Clock:
    """A clock that moves on only with `sleep` and `work`."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, list[float]()

    def monotonic(self) -> float:
        """Return the seconds on this clock."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move on at once."""
        self.pauses.append(seconds)
        self.work(seconds)

    def work(self, seconds: float) -> None:
        """Move on without a pause."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that `attempts` reads."""
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


class TestAttempts:
    def test_begin_at_once(self, clock: Clock) -> None:
        """If the first attempt succeeds, there is no pause, even if no time is left."""
        for _ in attempts(-1, every=1):
            break
        assert clock.pauses == []

    def test_are_apart(self, clock: Clock) -> None:
        """There is a pause between any two, but none after the last, where it would be useless."""
        assert len(list(attempts(1, every=0.5))) == 4
        assert clock.pauses == [0.5, 0.5, 0.5]

    def test_include_one_after_the_time_is_up(self, clock: Clock) -> None:
        """So what happened in the last pause is noticed."""
        looks = [clock.now for _ in attempts(1, every=0.75)]
        assert looks == [1000.0, 1000.75, 1001.5]

    def test_end_when_the_asking_took_too_long(self, clock: Clock) -> None:
        """The time counts from the start of the loop, and asking takes some of it."""
        count = 0
        for _ in attempts(10, every=1):
            clock.work(11)
            count += 1
        assert (count, clock.pauses) == (1, [])

    def test_begin_to_count_with_the_loop(self, clock: Clock) -> None:
        """The time does not start when `attempts` is called."""
        made = attempts(1, every=1)
        clock.work(60)
        assert len(list(made)) == 3

    def test_are_watched_between(self, clock: Clock) -> None:
        """`watch` is called once before each pause: not if the first attempt succeeds, nor when time is up."""
        seen: list[int] = []
        assert len(list(attempts(1, every=1, watch=lambda: seen.append(len(clock.pauses))))) == 3
        assert seen == [0, 1]

    def test_let_the_watch_end_the_wait(self, clock: Clock) -> None:
        """What it raises reaches the caller of the loop, before the pause."""

        def trouble() -> None:
            raise DeployFailed("the old release fails")

        with pytest.raises(DeployFailed, match="the old release fails"):
            list(attempts(60, every=1, watch=trouble))
        assert clock.pauses == []


# Each limit is shorter than the stop alone: what counts that is over at once.
STOPPED = """
import os, signal, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from pipeline.system.run import run
from pipeline.system.waiting import Deadline, attempts

wake = f"import os, time; time.sleep(5); [(os.kill({os.getpid()}, 18), time.sleep(0.2)) for _ in range(99)]"
command = [sys.executable, "-c", "import time; time.sleep(6)"]
waker = subprocess.Popen([sys.executable, "-c", wake])
with ThreadPoolExecutor() as pool:
    quiet, heard = pool.submit(run, command, timeout=4), pool.submit(run, command, timeout=4, told=print)
    tried = pool.submit(lambda: (list(attempts(2, every=0.1)), time.monotonic())[1])
    deadline, began = Deadline(600), time.monotonic()
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGSTOP)
    print(time.monotonic() - began > 3, 600 - deadline.left() < 2)
    print(tried.result() - began > 5, [quiet.result(), heard.result()])
waker.kill()
waker.wait()
"""


class TestStopped:
    def test_nothing_counts_the_time_in_which_we_were(self) -> None:
        """Ctrl-Z and `fg`: a replica or a command that had no time was not late."""
        done = subprocess.run([sys.executable, "-c", STOPPED], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "True True\nTrue ['', '']\n", "")


class TestDeadline:
    def test_comes(self) -> None:
        """A tick that is a little late moves nothing."""
        deadline = Deadline(0.2)
        assert deadline.left() <= 0.2
        assert list(attempts(deadline, every=0.05)) != []
        assert deadline.left() < 0

    def test_waits_for_what_is_not_its_matter(self) -> None:
        """A long request of an old replica does not make the next new one late."""
        deadline = Deadline(0.2)
        with deadline.paused():
            time.sleep(0.4)
        assert 0 < deadline.left() <= 0.2
