"""`nox -s rotate` on this machine: each secret under traffic, and killed at each step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.leaks import Watched, planted, printed
from tests.deploy.rotating import finish, is_killed, rotate, rotates_the_key, rotates_the_token, unfinished
from tests.deploy.runs import Deploy

pytestmark = pytest.mark.e2e

TOKEN = "SERVICE_TOKEN"
STAGES = ("plan", "migrate", "roll out", "prove", "record")


def test_the_token_of_programs_rotates(deployed: Checkout) -> None:
    """Whoever has the old one is served until the new one is everywhere."""
    rotates_the_token(deployed)
    assert deployed.untidy() == []


def test_the_key_of_sessions_rotates(deployed: Checkout) -> None:
    """In three rollouts, and nobody is signed out."""
    rotates_the_key(deployed)
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


def test_a_command_gives_the_secrets_and_takes_the_new_ones(checkout: Checkout, tmp_path: Path) -> None:
    """As a vault's would: `.env` has others, which nobody uses."""
    vault = tmp_path / "vault.json"
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", TOKEN)
    vault.write_text(json.dumps({name: f"of-the-vault-{name.lower()}-{'x' * 40}" for name in names}))
    script = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
    taking = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    read, write = (json.dumps([sys.executable, "-c", code, str(vault)]) for code in (script, taking))
    checkout.configure(secrets=f"{{ command = {read}, write = {write} }}")
    checkout.commit()
    checkout.proved()
    old = json.loads(vault.read_text())
    ours = checkout.settings()
    status = [checkout.request("POST", "/api/v1/testing/notes", json={"text": "x", "tag": "y"},
                               headers={"Authorization": f"Bearer {token}"}).status_code
              for token in (ours[TOKEN], old[TOKEN])]  # fmt: skip
    assert status == [401, 201]
    rotate(checkout, TOKEN)
    rotate(checkout, TOKEN, resume=True)
    new = json.loads(vault.read_text())
    assert {name for name in names if new[name] != old[name]} == {TOKEN}
    assert checkout.settings() == ours
    assert planted([*old.values(), *new.values()], printed(checkout)) == []


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
