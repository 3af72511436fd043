"""The pipeline through nox, as users and CI start it."""

from __future__ import annotations

import signal

import pytest

from tests.deploy.breaking import IN_SERVICE, wrap_service
from tests.deploy.checkout import Checkout
from tests.deploy.runs import Deploy
from tests.deploy.sessions import nox_command

pytestmark = pytest.mark.e2e


NO_INDEX = "http://127.0.0.1:9"  # the `discard` port, where nothing listens


def _nox(checkout: Checkout, session: str, *arguments: str, **environ: str) -> Deploy:
    return checkout.start_program([*nox_command(), "--session", session, "--", *arguments], **environ)


def test_nox_passes_everything_through(checkout: Checkout) -> None:
    """One JSON document on standard output, the exit codes of the contract, and Ctrl-C for the pipeline to answer."""
    first = _nox(checkout, "deploy", "--json").finish(300)
    assert (first.code, first.verdict) == (0, "proved"), str(first)
    assert first.stdout.startswith("{\n")
    assert _nox(checkout, "deploy", "lokal").finish().code == 2

    wrap_service(checkout, "if path == '/ready':\n    status = 503")  # it keeps rolling out until it is interrupted
    deploy = _nox(checkout, "deploy", "--json")
    deploy.wait_for_stage("roll out")
    assert _nox(checkout, "deploy").finish().code == 75
    deploy.send(signal.SIGINT)
    interrupted = deploy.finish()
    assert (interrupted.code, interrupted.verdict) == (130, "interrupted"), str(interrupted)
    assert checkout.answering() == {first.release}

    checkout.restore()
    checkout.append("backend/app.py", f"if {IN_SERVICE}:\n    raise RuntimeError('broken')\n")
    broken = _nox(checkout, "deploy", "--json").finish()
    assert (broken.code, broken.verdict) == (1, "rolled_back"), str(broken)
    assert checkout.answering() == {first.release}
    assert _nox(checkout, "status", "--json").finish().report["release"] == first.release
    assert checkout.untidy() == []


def test_what_is_installed_ships_and_goes_back_without_an_index(checkout: Checkout) -> None:
    """Packages that are there are not asked for again: an outage of the index stops no deploy and no rollback."""
    offline = {"UV_CACHE_DIR": str(checkout.root.with_name("no-cache")), "UV_DEFAULT_INDEX": NO_INDEX}
    first = _nox(checkout, "deploy", "--json").finish(300)
    assert (first.code, first.verdict) == (0, "proved"), str(first)
    checkout.change("without an index")
    second = _nox(checkout, "deploy", "--json", **offline).finish()
    assert (second.code, second.verdict) == (0, "proved"), str(second)
    back = _nox(checkout, "rollback", "--json", **offline).finish()
    assert (back.code, back.verdict, back.release) == (0, "proved", first.release), str(back)
