"""The same through nox, as users and CI start it."""

from __future__ import annotations

import shutil
import signal

import pytest
import uv

from tests.deploy.checkout import Checkout
from tests.deploy.runs import Deploy

pytestmark = pytest.mark.e2e


def _nox(checkout: Checkout, session: str, *arguments: str) -> Deploy:
    nox = shutil.which("nox")
    command = [nox] if nox else [uv.find_uv_bin(), "tool", "run", "--quiet", "nox"]
    return checkout.start_program([*command, "--session", session, "--", *arguments])


def test_nox_passes_everything_through(checkout: Checkout) -> None:
    """One JSON document on standard output, the exit codes of the contract, and Ctrl-C for the pipeline to answer."""
    first = _nox(checkout, "deploy", "--json").finish(300)
    assert (first.code, first.verdict) == (0, "proved"), str(first)
    assert first.stdout.startswith("{\n")
    assert _nox(checkout, "deploy", "lokal").finish().code == 2

    checkout.change("for nox")
    deploy = _nox(checkout, "deploy", "--json")
    deploy.wait_for_stage("roll out")
    assert _nox(checkout, "deploy").finish().code == 75
    deploy.send(signal.SIGINT)
    interrupted = deploy.finish()
    assert (interrupted.code, interrupted.verdict) == (130, "interrupted"), str(interrupted)
    assert checkout.answering() == {first.release}

    checkout.append("backend/app.py", "raise RuntimeError('broken')\n")
    broken = _nox(checkout, "deploy", "--json").finish()
    assert (broken.code, broken.verdict) == (1, "rolled_back"), str(broken)
    assert checkout.answering() == {first.release}
    assert _nox(checkout, "status", "--json").finish().report["release"] == first.release
    assert checkout.untidy() == []
