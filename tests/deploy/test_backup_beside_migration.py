"""Backups and migrations, deployed: neither begins while the other runs; what is taken away was backed up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.deploy.breaking import add_migration
from tests.deploy.checkout import Checkout
from tests.deploy.keeping import begin, data_records, make_table, told
from tests.deploy.runs import Deploy

pytestmark = pytest.mark.e2e

FILL = "INSERT INTO testing_big SELECT md5(random()::text) FROM generate_series(1, 500000)"  # seconds of a dump
SLEEPS = "DO $$ BEGIN IF EXISTS (SELECT FROM testing_notes) THEN PERFORM pg_sleep(600); END IF; END $$"
DUMPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY public.testing_big%'"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"


@contextmanager
def in_the_middle(checkout: Checkout) -> Iterator[Deploy]:
    """Yield a backup whose real `pg_dump` stands still in the middle of its work."""
    make_table(checkout, "testing_big", "text text")
    checkout.sql(FILL)
    backup = begin(checkout, "backup")
    dump = None
    while dump is None:
        assert backup.process.poll() is None, backup.said()
        dump = next((one for one in backup.family() if _dumps(one)), None)
    while not checkout.sql(DUMPING):
        assert dump.is_running(), backup.said()
    dump.suspend()
    try:
        yield backup
    finally:
        if dump.is_running():
            dump.resume()
        checkout.sql("DROP TABLE testing_big")


def _dumps(one: psutil.Process) -> bool:
    """Whether it is the `pg_dump` that makes the backup: others only say their version, and are gone at once."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return one.name() == "pg_dump" and any(word.startswith("--snapshot=") for word in one.cmdline())
    return False


def backups(checkout: Checkout) -> list[str]:
    """The names of those that there are."""
    return [one["name"] for one in told(checkout, "backups").report["backups"]]


def test_a_deploy_with_a_migration_waits_for_no_backup_and_ends_it_where_it_is_told_to(sound: Checkout) -> None:
    """In `check`, with nothing touched; the backup that is ended fails with a line, and leaves nothing."""
    old, revision, before = sound.answering(), sound.revision(), backups(sound)
    add_migration(sound, "beside a backup", "ALTER TABLE testing_notes ADD COLUMN beside text")
    with in_the_middle(sound) as backup:
        refused = sound.deploy()
        assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
        assert refused.reason.startswith("a backup runs since ")
        assert refused.reason.endswith("-backup): wait, or deploy with --cancel-backup; nothing was changed")
        assert [one["name"] for one in refused.report["stages"]][-1] == "check"
        assert (sound.answering(), sound.revision()) == (old, revision)
        shipped = sound.proved("--cancel-backup")
        assert "is ended before the first migration (--cancel-backup)" in shipped.stderr
        ended = backup.finish()
    assert (ended.code, ended.verdict) == (1, "failed"), str(ended)
    assert "--cancel-backup" in ended.reason
    assert backups(sound) == before
    assert not list((sound.home / "backups").glob(".part-*"))
    assert sound.sql("SELECT count(*) FROM information_schema.columns WHERE column_name = 'beside'") == 1
    sound.commit()


def test_a_backup_during_a_migration_is_refused_and_the_migration_ends_well(sound: Checkout) -> None:
    """At once, with the session that migrates."""
    before = backups(sound)
    add_migration(sound, "sleeps beside", SLEEPS)
    note = sound.write_note("a row")["id"]
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: sound.sql(SLEEPING) == 1, "the migration sleeps", 180)
    refused = told(sound, "backup")
    assert (refused.code, refused.verdict) == (1, "failed"), str(refused)
    assert "a migration runs since " in refused.reason
    assert "-migrations): nothing was backed up; try again when it has ended" in refused.reason
    sound.sql(f"SELECT pg_cancel_backend(pid) FROM ({SLEEPING.replace('count(*)', 'pid')}) AS sleeping")
    assert deploy.finish().verdict == "rolled_back"
    sound.request("DELETE", f"/api/v1/testing-notes/{note}", token=True)
    assert backups(sound) == before


def test_a_contracting_migration_has_a_backup_behind_it(sound: Checkout) -> None:
    """The deploy makes one where there is none, and the next is content with it; without `backups` it only warns."""
    for table in ("first", "second", "third"):
        make_table(sound, f"testing_{table}")

    def drop(table: str) -> str:
        sql = f"DROP TABLE IF EXISTS testing_{table}"
        add_migration(sound, f"drop the {table}", sql, contract_after="0001")
        said = sound.proved().stderr
        sound.commit()
        return said

    assert "no backup is made first, as local has no `backups`" in drop("first")
    assert backups(sound) == []
    sound.configure(backups='{ max_age = "1h" }')
    said = drop("second")
    assert "there is no backup yet, so nobody knows how long it takes: one is made first" in said
    [made] = backups(sound)
    assert f"backed up as {made}, here: " in said
    assert f"takes something away: backup {made} is " in drop("third")
    assert backups(sound) == [made]
    assert data_records(sound).count("done") == 0  # no story of a backup was told
