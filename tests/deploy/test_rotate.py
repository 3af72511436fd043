"""`nox -s rotate` on this machine: each secret under traffic, and killed at each step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.leaks import Watched, planted, printed
from tests.deploy.rotating import finish, is_killed, rotate, rotates_the_key, rotates_the_token, unfinished
from tests.deploy.runs import Deploy
from tests.notes import NOTES
from tests.tools import need

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


@dataclass
class Vault:
    """Where a checkout's secrets are: `command` prints them, `write` takes them."""

    command: list[str]
    write: list[str]
    place: Path
    environ: dict[str, str]

    def values(self) -> dict[str, str]:
        """Return what is in it, asked as a deploy does."""
        environ = {**os.environ, **self.environ}
        said = subprocess.run(self.command, cwd=self.place, env=environ, capture_output=True, text=True, check=True)
        return json.loads(said.stdout) if said.stdout.startswith("{") else dict(
            line.split("=", 1) for line in said.stdout.splitlines())  # fmt: skip


def of_a_script(one: Checkout, values: dict[str, str]) -> Vault:
    """Return a vault that keeps JSON in a file."""
    path = one.root.with_name("vault.json")
    path.write_text(json.dumps(values))
    reading = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
    taking = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    command, write = ([sys.executable, "-c", code, str(path)] for code in (reading, taking))
    return Vault(command, write, one.root, {})


def of_sops(one: Checkout, values: dict[str, str]) -> Vault:
    """Return a file that SOPS encrypts for a key of age, in the repository."""
    sops, name, dotenv = need("sops"), "secrets/local.env", ["--input-type", "dotenv", "--output-type", "dotenv"]
    identity = pyrage.x25519.Identity.generate()
    one.write(".sops.yaml", f"creation_rules:\n  - path_regex: ^{name}$\n    age: {identity.to_public()}\n")
    one.write(name, "".join(f"{key}={value}\n" for key, value in values.items()))
    subprocess.run([sops, "encrypt", "--in-place", name], cwd=one.root, check=True)
    command = [sops, "decrypt", "--output-type", "dotenv", name]
    write = [sops, "encrypt", "--filename-override", name, *dotenv, "--output", name]
    return Vault(command, write, one.root, {"SOPS_AGE_KEY": str(identity)})


@pytest.mark.parametrize("made", [of_a_script, of_sops])
def test_a_command_gives_the_secrets_and_takes_the_new_ones(
    checkout: Checkout, made: Callable[[Checkout, dict[str, str]], Vault]
) -> None:
    """The service is started from it, and a rotation writes to it; `.env` has others, which nobody uses."""
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", TOKEN)
    vault = made(checkout, {name: f"of-the-vault-{name.lower()}-{'x' * 40}" for name in names})
    checkout.environ |= vault.environ
    checkout.configure(secrets=f"{{ command = {json.dumps(vault.command)}, write = {json.dumps(vault.write)} }}")
    checkout.commit()
    checkout.proved()
    old, ours = vault.values(), checkout.settings()
    assert [_note(checkout, token) for token in (ours[TOKEN], old[TOKEN])] == [401, 201]
    rotate(checkout, TOKEN)
    rotate(checkout, TOKEN, resume=True)
    new = vault.values()
    assert {name for name in names if new[name] != old[name]} == {TOKEN}
    assert [_note(checkout, token) for token in (old[TOKEN], new[TOKEN])] == [401, 201]
    assert checkout.settings() == ours
    values = [value for value in (*old.values(), *new.values()) if value]
    assert planted(values, printed(checkout)) == []
    assert checkout.untidy() == []


def _note(one: Checkout, token: str) -> int:
    """Write a note with a `token`; return the status."""
    headers = {"Authorization": f"Bearer {token}"}
    return one.request("POST", NOTES, json={"text": "x", "tag": "y"}, headers=headers).status_code


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
