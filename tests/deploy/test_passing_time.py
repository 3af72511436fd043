"""Time that passes otherwise than a deploy expects: its clock is set, or it is stopped for longer than any limit."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import MakeCheckout
from tests.deploy.machine import wait_until
from tests.deploy.runs import newest
from tests.deploy.slow import be_slow

pytestmark = pytest.mark.e2e

Stopped = Callable[[Checkout, str], AbstractContextManager[Callable[[], int]]]

TIMEOUT_SECONDS = 15  # for the rollout
STOP_SECONDS = 25  # longer than the longest limit that counts in between
DEPLOY = f"{sys.executable} -m pipeline deploy"
# The clock of a deploy and of its generator, off by the seconds in a file; a replica has that of the machine.
CLOCK = """
import datetime, os, sys, time

real_time, real = time.time, datetime.datetime


def offset():
    try:
        with open(os.environ["CLOCK_FILE"]) as file:
            return float(file.read() or 0)
    except OSError:
        return 0.0


class Set(real):
    @classmethod
    def now(cls, tz=None):
        return real.now(tz) + datetime.timedelta(seconds=offset())


if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith("pipeline"):
    time.time, datetime.datetime = lambda: real_time() + offset(), Set
"""


@pytest.mark.parametrize("hours", [2, -2])
def test_a_clock_that_is_set_in_the_middle_changes_no_verdict(hours: int, sound: Checkout, tmp_path: Path) -> None:
    """As by NTP after a long sleep: nothing times out, no duration is absurd, and records stay in their order."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    clock = tmp_path / "clock"
    sound.change(f"a clock that is off by {hours} hours")
    deploy = sound.start("deploy", PYTHONPATH=str(tmp_path), CLOCK_FILE=str(clock))
    deploy.wait_for_stage("roll out")
    clock.write_text(str(hours * 3600))
    outcome = deploy.finish()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    report, folder = outcome.report, sound.newest_record()
    assert report["finished"][:13] != report["started"][:13], "the clock was not set"
    assert 0 < report["seconds"] < outcome.seconds
    assert all(0 <= stage["seconds"] < outcome.seconds for stage in report["stages"])
    assert f"took {report['seconds']:.0f} s" in (folder / "report.md").read_text()
    assert ">prove<" in (folder / "timeline.svg").read_text()
    listed = [record["number"] for record in json.loads(sound.run("releases", "--json").stdout)]
    assert listed == sorted(listed, reverse=True)
    again = sound.deploy()
    assert (again.verdict, again.release) == ("unchanged", outcome.release), str(again)
    assert sound.untidy() == []
    sound.commit()


@contextmanager
def by_a_signal(checkout: Checkout, stage: str) -> Iterator[Callable[[], int]]:
    """Deploy until `stage`, and stop all that depends on it while the block runs, as where the machine sleeps."""
    deploy = checkout.start("deploy")
    deploy.wait_for_stage(stage)
    time.sleep(1)  # into its loops
    deploy.send(signal.SIGSTOP, group=False)  # first: who is stopped begins no other
    stopped = deploy.family()
    for process in stopped:
        process.suspend()
    try:
        yield lambda: deploy.finish().code
    finally:
        for process in reversed(stopped):
            process.resume()
        deploy.send(signal.SIGCONT, group=False)


@contextmanager
def in_a_shell(checkout: Checkout, stage: str) -> Iterator[Callable[[], int]]:
    """Deploy in a terminal until `stage`, then Ctrl-Z; after the block, `fg`."""
    known = newest(checkout.records)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(checkout.root)
        os.execve("/bin/sh", ["sh", "-i"], {**os.environ, **checkout.environ, "PS1": ""})
    os.write(terminal, f"{DEPLOY} >/dev/null 2>&1\n".encode())
    begun = checkout.records / str(known + 1) / "begun.json"
    wait_until(lambda: begun.exists() and json.loads(begun.read_text()).get("stage") == stage, "no such stage", 90)
    os.write(terminal, b"\x1a")
    [deploy] = psutil.Process(pid).children()
    wait_until(lambda: deploy.status() == psutil.STATUS_STOPPED, "it goes on", 10)

    def ended() -> int:
        os.write(terminal, b"exit $?\n")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    try:
        yield ended
    finally:
        os.write(terminal, b"fg\n")


@pytest.mark.parametrize(
    ("stopped", "stage"), [(by_a_signal, "check"), (by_a_signal, "roll out"), (in_a_shell, "roll out")]
)
def test_a_deploy_that_was_stopped_goes_on(stopped: Stopped, stage: str, sound: Checkout) -> None:
    """No limit counts the time, nobody else gets the lock meanwhile, and the release is proved by what was sent."""
    sound.configure(timeout=TIMEOUT_SECONDS)
    sound.change(f"{stopped.__name__}, {stage}")
    number = newest(sound.records) + 1
    with stopped(sound, stage) as ended:
        time.sleep(STOP_SECONDS)
        assert sound.run("deploy").code == 75
    code, report = ended(), sound.report(number)
    assert (code, report["verdict"]) == (0, "proved"), report
    assert (report["traffic"]["failed"], report["traffic"]["writes_lost"]) == (0, 0)
    assert report["seconds"] > STOP_SECONDS
    assert sound.answering() == {report["release"]}
    assert sound.untidy() == []
    sound.commit()


def test_a_generator_that_was_stopped_with_its_deploy_has_not_hung(make_checkout: MakeCheckout) -> None:
    """They are stopped while the last slow answers of the proof are waited for, and those are judged afterwards."""
    slow = make_checkout(rate=20, bake_seconds=1)
    be_slow(slow, seconds=8, limit=9)
    slow.proved()
    slow.change("a line")
    with by_a_signal(slow, "prove") as ended:
        time.sleep(STOP_SECONDS)
    assert ended() == 0
    report = slow.report(newest(slow.records))
    assert (report["verdict"], report["traffic"]["failed"]) == ("proved", 0), report
