"""Migrations of a database that others use, deployed: they wait for whom they must, and end when they are given up."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.deploy.machine import wait_until
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
READER = """
import asyncio, asyncpg, sys
async def read():
    reader = await asyncpg.connect(host=sys.argv[1], user=sys.argv[2], database=sys.argv[3],
                                   server_settings={"application_name": "monthly-report"})
    await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await reader.fetch("SELECT 'a secret value' FROM testing_notes")
    print(reader.get_server_pid(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await reader.execute("COMMIT")
asyncio.run(read())
"""


@contextmanager
def reading(checkout: Checkout) -> Iterator[subprocess.Popen[str]]:
    """Another application in the middle of a long transaction; a line on its standard input ends it."""
    sockets, settings = checkout.sql("SHOW unix_socket_directories"), checkout.settings()
    place = [sockets, settings["POSTGRES_OWNER"], settings["POSTGRES_DB"]]
    with subprocess.Popen(
        [sys.executable, "-c", READER, *place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_an_index_waits_for_an_old_transaction_and_the_progress_names_it(sound: Checkout) -> None:
    """For longer than a lock may take; then it is built, and the release ships."""
    migration = add_migration(
        sound, "by tag", "CREATE INDEX CONCURRENTLY tags_idx ON testing_notes (tag)", transactional=False
    )
    with reading(sound) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        pid = reader.stdout.readline().strip()
        deploy = sound.start("deploy")
        waits = re.compile(
            rf"migration {migration}: .*waits for pid {pid} \(monthly-report, its transaction is open for"
        )
        deploy.wait_for(lambda: len(waits.findall(deploy.said())) >= 2, "it said for whom it waits, twice")
        reader.stdin.write("\n")
        reader.stdin.flush()
        outcome = deploy.finish()
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert "secret" not in outcome.stderr
    assert sound.sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'tags_idx'::regclass") is True
    sound.commit()


@pytest.mark.parametrize("how", ["its limit", "Ctrl-C"])
def test_a_migration_that_is_given_up_ends_in_the_database_too(how: str, sound: Checkout) -> None:
    """Nothing of it is applied, no statement goes on without its client, and the old release serves."""
    old, revision = sound.answering(), sound.revision()
    sound.configure(migration_timeout=8 if how == "its limit" else 600)
    # An empty rehearsal database is left alone.
    add_migration(
        sound, "sleeps",
        "CREATE TABLE sleeps (id int)",
        "DO $$ BEGIN IF EXISTS (SELECT FROM testing_notes) THEN PERFORM pg_sleep(600); END IF; END $$",
    )  # fmt: skip
    note = sound.write_note("a row")["id"]
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: sound.sql(RUNNING) == 1, "the migration sleeps")
    if how == "Ctrl-C":
        deploy.send(signal.SIGINT)
    outcome = deploy.finish()
    if how == "Ctrl-C":
        assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
    else:
        assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
        assert "the migrations of a deploy may take 8 s (`migration_timeout`); nothing of it is half" in outcome.reason
    wait_until(lambda: sound.sql(RUNNING) == 0 or None, "the statement goes on")
    assert (sound.revision(), sound.answering()) == (revision, old)
    assert sound.sql("SELECT to_regclass('sleeps')") is None
    sound.request("DELETE", f"{NOTES}/{note}", token=True)
    assert sound.untidy() == []
