"""On this machine the data moves to a new major by a backup: the commands that are printed do it."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.keeping import DIGEST

pytestmark = pytest.mark.e2e


def test_the_printed_commands_move_the_data(checkout: Checkout) -> None:
    """From the first to the last, with an engine that is new to the folder: there is a wheel of one major alone."""
    checkout.proved()
    checkout.write_note("before")
    before = checkout.sql(DIGEST)
    refused = checkout.run("upgrade-database", "--yes", "--json")
    assert refused.code == 2
    [line] = refused.problems()
    commands = re.findall(r"`([^`]+)`", line)
    assert [one.split()[0] for one in commands] == ["nox", "nox", "mv", "nox", "nox"]
    for command in commands:
        words = command.split()
        if words[0] == "mv":
            subprocess.run(words, check=True)
            continue
        outcome = checkout.run(words[2], *[word for word in words[4:] if word != "local"])
        assert outcome.code == 0, str(outcome)
    assert checkout.sql(DIGEST) == before
