"""`nox -s rotate` on this machine: each secret under traffic, and killed at each step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import AddRow
from tests.deploy.checkout import Checkout
from tests.deploy.leaks import Watched, planted, printed
from tests.deploy.rotating import finish, is_killed, rotate, rotates_the_key, rotates_the_token, unfinished
from tests.deploy.runs import Deploy
from tests.deploy.vaults import MakeVault, of_a_script, of_sops, starts_and_rotates

pytestmark = pytest.mark.e2e

TOKEN = "SERVICE_TOKEN"
STAGES = ("plan", "migrate", "roll out", "prove")


@pytest.fixture(name="deployed")
def _alone(deployed: Checkout) -> Iterator[Checkout]:
    """The module's clone; a rotation that one test left unfinished is in nobody else's way."""
    yield deployed
    (deployed.home / "rotation.json").unlink(missing_ok=True)


def test_the_token_of_programs_rotates(deployed: Checkout) -> None:
    """Whoever has the old one is served until the new one is everywhere."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []


def test_the_key_of_sessions_rotates(deployed: Checkout, add_row: AddRow) -> None:
    """In three rollouts, and nobody is signed out. (The controls are in test_accounts.py.)"""
    add_row("rotation of JWT_SECRET_KEY", rotates_the_key(deployed, deployed.set_env))
    assert deployed.untidy() == []


@pytest.mark.parametrize("stage", ["written", *STAGES])
def test_goes_on_after_kill_9(deployed: Checkout, stage: str) -> None:
    """At each step: no request fails, and the old token is refused in the end."""
    old = deployed.settings()[TOKEN]

    def reached(run: Deploy) -> bool:
        return deployed.settings()[TOKEN] != old if stage == "written" else run.stage() == stage

    is_killed(deployed, TOKEN, reached, stage)
    assert deployed.answering() != set()
    assert deployed.run("rotate", "JWT_SECRET_KEY").code == 2
    finish(deployed, TOKEN)
    assert deployed.settings()[TOKEN] != old
    assert deployed.settings()[f"{TOKEN}_PREVIOUS"] == ""
    assert deployed.write_note("after it was killed")["text"] == "after it was killed"
    assert deployed.untidy() == []


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "REDIS_PASSWORD"])
def test_a_store_on_a_socket_has_nothing_to_rotate(deployed: Checkout, name: str) -> None:
    """It says so, with exit code 2."""
    done = rotate(deployed, name, code=2)
    assert "asks for no password: there is nothing to rotate" in done.problems()[0]
    assert not unfinished(deployed)


def test_a_secret_that_the_shell_sets_is_not_written_in_vain(deployed: Checkout) -> None:
    """The shell wins over `.env`: it says which value to put where, and changes nothing."""
    before = deployed.settings()
    done = deployed.run("rotate", TOKEN, SERVICE_TOKEN=before[TOKEN])
    assert done.code == 2, str(done)
    assert done.problems()[0].startswith(f"put into {TOKEN} or {TOKEN}_FILE of the environment of this process, which ")
    assert deployed.settings() == before


@pytest.mark.parametrize("made", [of_a_script, of_sops])
def test_a_command_gives_the_secrets_and_takes_the_new_ones(checkout: Checkout, made: MakeVault) -> None:
    """The service is started from it, and a rotation writes to it; `.env` has others, which nobody uses."""
    starts_and_rotates(checkout, made, TOKEN)


def test_what_is_planted_is_found(deployed: Checkout) -> None:
    """In a command line, in what was printed, in a log: else the tests above would find nothing, ever."""
    value, watched = deployed.settings()[TOKEN], Watched()
    with watched.watching():
        subprocess.run(["sleep", "1", f"--canary={value}"], check=False, capture_output=True)
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", value], check=True)
    assert planted([value], {}, watched.lines) != []
    assert planted([value], printed(deployed)) == []
    log = deployed.home / "logs" / "planted.log"
    log.write_text(f"a line with {value} in it\n")
    try:
        assert planted([value], printed(deployed)) == [str(log)]
    finally:
        log.unlink()
