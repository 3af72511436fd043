"""What a move from PostgreSQL 17 to 18 is tried with on each target: traffic, and what may go wrong in it."""

from __future__ import annotations

import signal

from tests.deploy.checkout import Checkout
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import SUM, TABLE, Writers, begin, tell
from tests.deploy.machine import wait_until
from tests.deploy.runs import Outcome
from tests.deploy.visitors import Visitors
from tests.notes import NOTES

__all__ = ["VERSION", "is_healed", "is_interrupted", "is_not_restored", "is_undone", "moves_each_acknowledged_write"]

VERSION = "SELECT current_setting('server_version_num')::int / 10000"
LONG_BAKE, SHORT_BAKE = 20, 3  # seconds: something breaks in the first, however busy the machine is
# Fails on 18 alone, with each row that is copied there.
ONLY_17 = (
    "CREATE FUNCTION only_17() RETURNS bool LANGUAGE sql AS"
    " 'SELECT current_setting(''server_version_num'')::int < 180000';"
    " CREATE TABLE stubborn (ok bool CHECK (ok AND public.only_17())); INSERT INTO stubborn VALUES (true);"
    ' ALTER TABLE stubborn OWNER TO "{owner}"; ALTER FUNCTION only_17 OWNER TO "{owner}"'
)


def moves_each_acknowledged_write(old: Checkout, table: str, add_row: AddRow) -> None:
    """Move `old` under traffic: a deploy is refused before, writes get 503 for some seconds, nobody sees another fault.

    The figures become a row of `table`.
    """
    before = old.sql(SUM)
    refused = old.deploy()
    assert refused.code == 2, str(refused)
    assert f"`nox -s upgrade-database -- {old.environment}` moves it to PostgreSQL 18" in refused.problems()[0]
    with Writers(old) as writers, Visitors(old.url, NOTES, "/health") as visitors:
        wait_until(lambda: len(writers.acknowledged()) > 20, "nobody wrote anything", 30)
        outcome = tell(old, "upgrade-database", "--yes")
        known = len(writers.acknowledged())
        wait_until(lambda: len(writers.acknowledged()) > known, "nobody writes any more", 30)
    assert outcome.verdict == "proved", str(outcome)
    assert old.sql(VERSION) == "18"
    assert writers.acknowledged() <= _ids(old)
    only = f"{SUM} AND text LIKE 'before %'"
    assert old.sql(only) == before
    assert {(one.status, bool(one.retry_after)) for one in writers.writes} <= {(201, False), (503, True)}
    assert {visit.status for visit in visitors.visits} <= {200, 503}
    assert {visit.status for visit in visitors.of("/health")} == {200}
    turned = [one for one in writers.writes if one.status == 503]
    closed = turned[-1].ended - turned[0].at
    reads = [visit for visit in visitors.of(NOTES) if visit.status == 503]
    unread = reads[-1].at + reads[-1].seconds - reads[0].at if reads else 0.0
    assert unread < closed <= outcome.report["closed_seconds"] + 5
    done = tell(old, "upgrade-database", "--yes")
    assert done.report == {"environment": old.environment, "verdict": "unchanged"}
    moved = f"{len(writers.acknowledged())} acknowledged writes, all there; 503 for writes {closed:.1f} s"
    add_row(table, f"under traffic                   {outcome.seconds:4.1f} s, {moved}, for reads {unread:.1f} s")


def is_not_restored(old: Checkout) -> Outcome:
    """Try it with a table that 18 refuses, `stubborn`: nobody is turned away."""
    old.sql(ONLY_17.format(owner=old.settings()["POSTGRES_OWNER"]))
    before = old.sql(SUM)
    with Visitors(old.url, NOTES, "/ready") as visitors:
        outcome = tell(old, "upgrade-database", "--yes", code=1)
    assert "stubborn" in outcome.reason
    assert {visit.status for visit in visitors.visits} == {200}
    assert old.sql(SUM) == before
    return outcome


def is_undone(old: Checkout) -> Outcome:
    """Break the new database while it is proved: the old one is back, with what it had."""
    before = old.sql(SUM)
    old.configure(bake_seconds=LONG_BAKE)
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("prove")
    old.sql(f"DROP TABLE {TABLE} CASCADE")
    outcome = upgrade.finish()
    old.configure(bake_seconds=SHORT_BAKE)
    assert (outcome.code, outcome.verdict) == (1, "undone"), str(outcome)
    assert old.sql(SUM) == before
    return outcome


def is_interrupted(old: Checkout) -> None:
    """Press Ctrl-C while nobody may write."""
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("last restore")
    upgrade.send(signal.SIGINT)
    outcome = upgrade.finish()
    assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)


def is_healed(old: Checkout, stage: str, refused: str) -> str:
    """Kill it in `stage`, and deploy: where 17 serves, that is `refused`, and the next try is proved; return a row."""
    with Writers(old) as writers:
        upgrade = begin(old, "upgrade-database", "--yes")
        upgrade.wait_for_stage(stage)
        upgrade.kill()
        deploy = old.deploy()
        after = len(writers.acknowledged())
        wait_until(lambda: len(writers.acknowledged()) > after, "nobody writes any more", 60)
    major = old.sql(VERSION)
    assert deploy.code == (0 if major == "18" else 2), str(deploy)
    if major == "17":
        assert refused in deploy.problems()[0]
        assert tell(old, "upgrade-database", "--yes").verdict == "proved"
    assert writers.acknowledged() <= _ids(old)
    said = f"PostgreSQL {major} serves after the next deploy, none of {len(writers.acknowledged())} writes lost"
    return f"kill -9 in {stage:13}        {said}"


def _ids(one: Checkout) -> set[str]:
    return set(one.sql(f"SELECT string_agg(id::text, ' ') FROM {TABLE}").split())
