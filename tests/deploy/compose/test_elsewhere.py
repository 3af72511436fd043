"""The checkout is reached by a link, was moved, or was cleaned: its containers are still its own."""

from __future__ import annotations

import sys

import pytest

from tests.deploy.compose.stack import ComposeCheckout

pytestmark = pytest.mark.e2e


def test_a_link_to_the_checkout_is_the_checkout(deployed: ComposeCheckout) -> None:
    """A deploy from a shell that stands in the link changes nothing, and neither does the next one without it."""
    before = {name: deployed.inspect(name)["Id"] for name in deployed.containers()}
    link = deployed.root.with_name("current")
    link.symlink_to(deployed.root)
    try:
        command = ["sh", "-c", f"cd '{link}' && exec '{sys.executable}' -m pipeline deploy compose --json"]
        through = deployed.start_program(command, PWD=str(link)).finish()
    finally:
        link.unlink()
    assert (through.code, through.verdict) == (0, "unchanged"), str(through)
    assert deployed.deploy().verdict == "unchanged"
    assert {name: deployed.inspect(name)["Id"] for name in deployed.containers()} == before


def test_secrets_are_taken_back_from_what_runs(deployed: ComposeCheckout) -> None:
    """After `git clean -ffdx` the values of before are in `.env` again, and a deploy is proved.

    The owner's password is in nothing that runs: it is a new one, which the deploy gives to the role.
    """
    before = deployed.settings()
    deployed.git("clean", "--quiet", "-ffdx")
    assert deployed.run("init", "--recover").code == 0
    after = deployed.settings()
    kept = {name for name in before if name.endswith(("_PASSWORD", "_TOKEN"))} - {"POSTGRES_OWNER_PASSWORD"}
    names = {"PROJECT_NAME", *kept}
    assert {name: after[name] for name in names} == {name: before[name] for name in names}
    again = deployed.deploy()
    assert (again.code, again.verdict) == (0, "proved"), str(again)


def test_a_folder_that_was_moved_takes_its_containers_over(deployed: ComposeCheckout) -> None:
    """No command can be typed at the old place; the data is that of before."""
    note = deployed.write_note("before the move")
    deployed.root = deployed.root.rename(deployed.root.with_name("moved"))
    again = deployed.deploy()
    assert again.code == 0, str(again)
    assert deployed.sql(f"SELECT count(*) FROM testing_notes WHERE text = '{note['text']}'") == "1"
    assert deployed.untidy() == []
