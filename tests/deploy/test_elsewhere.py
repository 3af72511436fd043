"""The checkout is somewhere else than it was, or its Python is: the data stays, and one deploy mends it."""

from __future__ import annotations

import psutil
import pytest

from tests.deploy.checkout import Checkout

pytestmark = pytest.mark.e2e


def test_a_folder_that_was_moved_is_deployed_from_its_new_place(checkout: Checkout) -> None:
    """What runs from the old one is stopped, and its data is brought along."""
    release = checkout.proved().release
    before = checkout.write_note("before the move")
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    again = checkout.deploy()
    assert again.code == 0, str(again)
    assert "this folder was " in again.stderr
    assert checkout.answering() == {release} == {again.release}
    assert checkout.sql(f"SELECT count(*) FROM testing_notes WHERE text = '{before['text']}'") == 1
    assert checkout.untidy() == []


def test_a_python_that_is_gone_is_replaced(checkout: Checkout) -> None:
    """After an upgrade of the system and a restart: every virtual environment leads nowhere."""
    checkout.proved()
    before = checkout.write_note("before the upgrade")
    for process in checkout.processes():
        process.kill()
    psutil.wait_procs(checkout.processes(), timeout=10)
    for python in checkout.home.glob("venvs/*/bin/python"):
        python.unlink()
        python.symlink_to("/nonexistent/python3")
    assert any("its Python was removed or upgraded" in line for line in checkout.run("doctor").stderr.splitlines())
    again = checkout.deploy()
    assert again.code == 0, str(again)
    assert "was removed or upgraded: making it anew" in again.stderr
    assert checkout.sql(f"SELECT count(*) FROM testing_notes WHERE text = '{before['text']}'") == 1
    assert checkout.untidy() == []


def test_state_elsewhere_survives_git_clean(checkout: Checkout) -> None:
    """Self-hosted runners clean before each run: records, artifacts and secrets are still there."""
    checkout.environ["SLIPWAY_STATE"] = str(checkout.root.with_name("state"))
    first = checkout.deploy()
    assert (first.code, first.verdict) == (0, "proved"), str(first)
    checkout.git("clean", "--quiet", "-ffdx")
    again = checkout.deploy()
    assert (again.code, again.verdict, again.release) == (0, "unchanged", first.release), str(again)
    assert not (checkout.root / ".slipway").exists()
    assert not (checkout.root / ".env").exists()
    assert checkout.run("down", "--volumes").code == 0
