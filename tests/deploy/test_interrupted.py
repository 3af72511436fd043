"""Ctrl-C, and a second deploy at the same time."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.runs import Deploy

pytestmark = pytest.mark.e2e

STAGES = ["build", "check", "migrate", "roll out", "prove"]


def _interrupted(deploy: Deploy, stage: str) -> None:
    outcome = deploy.finish()
    assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
    assert "SIG" in outcome.reason
    assert "Traceback" not in outcome.stderr, str(outcome)
    assert outcome.report["stages"][-1]["name"] == stage
    assert outcome.report["stages"][-1]["outcome"] == "interrupted"


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_undoes_the_deploy(stage: str, sound: Checkout, add_row: AddRow) -> None:
    """Exit code 130, and every replica of the old release serves as before."""
    old = sound.answering()
    sound.change(f"interrupted in {stage}")
    deploy = sound.start("deploy")
    deploy.wait_for_stage(stage)
    deploy.send(signal.SIGINT)
    _interrupted(deploy, stage)
    assert sound.answering() == old
    assert [(one["release"], one["ready"]) for one in sound.status()["replicas"]] == [(*old, True)] * 2
    assert sound.untidy() == []
    add_row("Ctrl-C", f"{stage:9} 130, interrupted after {deploy.finish().seconds:4.1f} s, the old release serves")


def test_sigterm_and_an_impatient_user_get_the_same_end(sound: Checkout) -> None:
    """A runner's SIGTERM undoes the deploy, and Ctrl-C while that happens does not undo the undoing."""
    old = sound.answering()
    sound.change("terminated")
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: len(list(sound.home.glob("programs/replica-*.conf"))) == 3, "a third replica")
    deploy.send(signal.SIGTERM, group=False)
    deploy.wait_for_stage("roll back")
    deploy.send(signal.SIGINT)
    deploy.send(signal.SIGINT)
    _interrupted(deploy, "roll out")
    assert "already undoing" in deploy.said()
    assert sound.answering() == old
    assert sound.untidy() == []


def test_two_signals_at_once_are_one(sound: Checkout) -> None:
    """The second Ctrl-C of an impatient user may come before the first one has had any effect."""
    old = sound.answering()
    sound.change("interrupted twice")
    deploy = sound.start("deploy")
    deploy.wait_for_stage("roll out")
    deploy.send(signal.SIGINT)
    deploy.send(signal.SIGINT)
    deploy.send(signal.SIGTERM)
    _interrupted(deploy, "roll out")
    assert sound.answering() == old
    assert sound.untidy() == []


def test_a_second_deploy_is_told_who_holds_the_lock(sound: Checkout) -> None:
    """Exit code 75 at once, with holder, host, process and time; `status` knows them too; the first one goes on."""
    sound.change("the first of two")
    first = sound.start("deploy")
    first.wait_for_stage("build")
    with first.paused():  # four starts of Python may take longer than a deploy
        records = sound.newest_record()
        second, rollback, down = sound.deploy(), sound.run("rollback"), sound.run("down")
        lock = sound.status()["lock"]
    assert (second.code, down.code) == (75, 75)
    assert rollback.code in (2, 75), "there may be nothing to go back to"
    [line] = second.problems()
    assert lock["pid"] == first.process.pid
    for known in (str(first.process.pid), socket.gethostname(), lock["since"]):
        assert known in line
    assert sound.newest_record() == records
    outcome = first.finish()
    assert (outcome.code, outcome.verdict, outcome.traffic["failed"]) == (0, "proved", 0), str(outcome)
    assert sound.status()["lock"] is None
    sound.commit()


def test_ctrl_c_in_the_very_first_deploy_leaves_nothing_half_done(checkout: Checkout) -> None:
    """There is nothing to go back to: it says so, and the next deploy starts afresh."""
    deploy = checkout.start("deploy")
    deploy.wait_for_stage("roll out")
    deploy.send(signal.SIGINT)
    _interrupted(deploy, "roll out")
    assert checkout.status()["lock"] is None
    assert checkout.status()["replicas"] == []
    checkout.proved()
    assert checkout.untidy() == []
