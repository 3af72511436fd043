"""A migration on Compose that is given up ends in the database, too: its container is told, not only its client."""

from __future__ import annotations

import signal

import pytest

from tests.deploy.breaking import add_migration
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e

RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %pg_sleep(600)%'"


def test_ctrl_c_ends_the_statement_and_its_container(sound: ComposeCheckout) -> None:
    """Nothing of it is applied, and the old release serves."""
    old, revision = sound.answering(), sound.revision()
    add_migration(
        sound, "sleeps", "CREATE TABLE sleeps (id int)",
        "DO $$ BEGIN IF EXISTS (SELECT FROM testing_notes) THEN PERFORM pg_sleep(600); END IF; END $$",
    )  # fmt: skip
    sound.write_note("a row")
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: sound.sql(RUNNING) == "1", "the migration sleeps", seconds=180)
    deploy.send(signal.SIGINT)
    outcome = deploy.finish()
    assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
    wait_until(lambda: sound.sql(RUNNING) == "0" or None, "the statement goes on")
    assert (sound.revision(), sound.answering()) == (revision, old)
    assert sound.sql("SELECT to_regclass('sleeps') IS NULL") == "t"
    assert sound.untidy() == []
