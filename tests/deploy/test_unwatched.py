"""A deploy that nobody watches any more: its reader has left, or its terminal was closed. It goes on."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.deploy.runs import newest

pytestmark = pytest.mark.e2e

DEPLOY = [sys.executable, "-m", "pipeline", "deploy"]
SECONDS = 180


@contextmanager
def in_a_terminal(checkout: Checkout) -> Iterator[Callable[[], object]]:
    """Deploy in a terminal of its own, which is closed by what is yielded."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(checkout.root)
        os.execve(DEPLOY[0], DEPLOY, {**os.environ, **checkout.environ})
    yield lambda: os.close(terminal)
    os.waitpid(pid, 0)


@contextmanager
def into_a_pipe(checkout: Checkout) -> Iterator[Callable[[], object]]:
    """Deploy with its output in a pipe, whose reader leaves when what is yielded is called."""
    read, write = os.pipe()
    process = subprocess.Popen(
        DEPLOY, cwd=checkout.root, env={**os.environ, **checkout.environ}, stdout=write, stderr=write
    )
    os.close(write)
    yield lambda: os.close(read)
    assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("watched", [into_a_pipe, in_a_terminal])
def test_a_deploy_goes_on_without_its_audience(
    watched: Callable[[Checkout], AbstractContextManager[Callable[[], object]]], sound: Checkout
) -> None:
    """In the middle of its rollout nobody reads it any more: it is proved, and its record has all that it said."""
    known = newest(sound.records)
    sound.change(f"unwatched, {watched.__name__}")
    record = sound.records / str(known + 1)

    def stage() -> str:
        begun = record / "begun.json"
        return str(json.loads(begun.read_text()).get("stage")) if begun.exists() else ""

    with watched(sound) as leave:
        wait_until(lambda: stage() == "roll out", "no rollout", SECONDS)
        leave()
        wait_until((record / "report.json").exists, "no report", SECONDS)
    report, said = sound.report(known + 1), (record / "deploy.log").read_text()
    assert report["verdict"] == "proved", report
    assert "any more (" in said
    assert "✓ record" in said
    assert f"Release {report['release']} serves local" in said
    assert sound.answering() == {report["release"]}
    assert sound.untidy() == []
    sound.commit()
