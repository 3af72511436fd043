"""Places outside of `.env` that a checkout's secrets come from, by a command of its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyrage

from tests.deploy.checkout import Checkout
from tests.deploy.leaks import planted, printed
from tests.deploy.rotating import finish, rotate, writes
from tests.tools import need

__all__ = ["MakeVault", "Vault", "of_a_script", "of_sops", "starts_and_rotates"]

TOKEN = "SERVICE_TOKEN"
NAMES = ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "REDIS_PASSWORD", "JWT_SECRET_KEY", TOKEN)


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


MakeVault = Callable[[Checkout, dict[str, str]], Vault]


def starts_and_rotates(one: Checkout, made: MakeVault, name: str) -> None:
    """Start the service with secrets of a vault, rotate `name` there; `.env` has others, which nobody uses."""
    vault = made(one, {each: f"of-the-vault-{each.lower()}-{'x' * 40}" for each in NAMES})
    one.environ |= vault.environ
    one.configure(secrets=f"{{ command = {json.dumps(vault.command)}, write = {json.dumps(vault.write)} }}")
    one.commit()
    one.proved()
    old, ours = vault.values(), one.settings()
    assert [writes(one, token) for token in (ours[TOKEN], old[TOKEN])] == [401, 201]
    rotate(one, name)
    finish(one, name)
    new = vault.values()
    assert {each for each in NAMES if new[each] != old[each]} == {name}
    assert [writes(one, values[TOKEN]) for values in (old, new)] == [401 if name == TOKEN else 201, 201]
    assert one.settings() == ours
    values = [found[each] for found in (old, new) for each in NAMES]  # and not who logs in
    assert planted(values, printed(one)) == []
    assert one.untidy() == []
