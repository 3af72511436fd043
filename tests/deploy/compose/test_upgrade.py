"""PostgreSQL 17 to 18 on Compose: each acknowledged write moves, people read meanwhile, and no fault loses anything."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers import docker
from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.test_backups import SUM, TABLE, forget_backups, tell
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import Writers, begin
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.notes import NOTES
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

UPGRADES = "compose: PostgreSQL 17 to 18"
HOME = "/var/lib/postgresql"
OLD_MOUNT, NEW_MOUNT = f"- postgres:{HOME} #", f"- postgres-18:{HOME} #"
# Images since 18 keep their data so, which the move after this one begins with.
USER = "      POSTGRES_USER: postgres\n"
FOLDER_OF_17 = f"{USER}      PGDATA: {HOME}/17/docker\n"
VERSION = "SELECT current_setting('server_version_num')::int / 10000"
LONG_BAKE, SHORT_BAKE = 20, 3  # seconds: something breaks in the first, however busy the machine is
# Fails on 18 alone, with each row that is copied there.
ONLY_17 = (
    "CREATE FUNCTION only_17() RETURNS bool LANGUAGE sql AS"
    " 'SELECT current_setting(''server_version_num'')::int < 180000';"
    " CREATE TABLE stubborn (ok bool CHECK (ok AND public.only_17())); INSERT INTO stubborn VALUES (true);"
    ' ALTER TABLE stubborn OWNER TO "{owner}"; ALTER FUNCTION only_17 OWNER TO "{owner}"'
)


@pytest.fixture
def old(template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """A clone whose release was proved on PostgreSQL 17, with notes; docker-compose.yml names 18 and its volume now."""
    one = ComposeCheckout.make(template, tmp_path / "clone")
    one.patch("docker-compose.yml", USER, FOLDER_OF_17)
    one.commit()
    one.set_env(POSTGRES_IMAGE="postgres:17-trixie")
    one.proved()
    for number in range(20):
        one.write_note(f"before {number}")
    define_18(one)
    yield one
    # Only one of the two volumes is in docker-compose.yml, and nothing of the pipeline's removes the other one.
    one.run("down")
    docker("volume", "rm", f"{one.project}_postgres", check=False)
    one.remove(set())
    forget_backups(one)


def define_18(one: ComposeCheckout) -> None:
    one.patch("docker-compose.yml", OLD_MOUNT, NEW_MOUNT)
    one.patch("docker-compose.yml", FOLDER_OF_17, USER)
    one.patch("docker-compose.yml", "\n  postgres:\n  redis:\n", "\n  postgres-18:\n  redis:\n")
    one.set_env(POSTGRES_IMAGE="postgres:18-trixie")


def volumes(one: ComposeCheckout) -> set[str]:
    """The volumes of PostgreSQL's data that there are."""
    return set(docker("volume", "ls", "--quiet", "--filter", f"name={one.project}_postgres").split())


def tidy(one: ComposeCheckout, major: str, *kept: str) -> None:
    """Assert that the server of MAJOR serves and takes writes, that KEPT is what is left, and no other container."""
    assert one.sql(VERSION) == major
    assert one.write_note("after")["id"]
    assert volumes(one) == {f"{one.project}_{name}" for name in kept}
    assert one.untidy() == []


@pytest.mark.gate
def test_it_moves_each_acknowledged_write(old: ComposeCheckout, add_row: AddRow) -> None:
    """Under traffic: a deploy is refused before, writes get 503 for some seconds, and nobody sees another fault."""
    before = old.sql(SUM)
    refused = old.deploy()
    assert refused.code == 2, str(refused)
    assert "`nox -s upgrade-database -- compose` moves it to PostgreSQL 18" in refused.problems()[0]
    with Writers(old) as writers, Visitors(f"http://localhost:{old.port}", NOTES, "/health") as visitors:
        wait_until(lambda: len(writers.acknowledged()) > 20, "nobody wrote anything", 30)
        outcome = tell(old, "upgrade-database", "--yes")
        known = len(writers.acknowledged())
        wait_until(lambda: len(writers.acknowledged()) > known, "nobody writes any more", 30)
    assert outcome.verdict == "proved", str(outcome)
    assert old.sql(VERSION) == "18"
    ids = set(old.sql(f"SELECT string_agg(id::text, ' ') FROM {TABLE}").split())
    assert writers.acknowledged() <= ids
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
    assert done.report == {"environment": "compose", "verdict": "unchanged"}
    tidy(old, "18", "postgres", "postgres-18")
    assert old.deploy().code == 0  # with the programs of 18
    tell(old, "backup")
    moved = f"{len(writers.acknowledged())} acknowledged writes, all there; 503 for writes {closed:.1f} s"
    add_row(UPGRADES, f"under traffic                   {outcome.seconds:4.1f} s, {moved}, for reads {unread:.1f} s")


def test_what_cannot_be_restored_is_undone(old: ComposeCheckout, add_row: AddRow) -> None:
    """Before anybody is turned away."""
    old.sql(ONLY_17.format(owner=old.settings()["POSTGRES_OWNER"]))
    before = old.sql(SUM)
    with Visitors(f"http://localhost:{old.port}", NOTES, "/ready") as visitors:
        outcome = tell(old, "upgrade-database", "--yes", code=1)
    assert "stubborn" in outcome.reason
    assert {visit.status for visit in visitors.visits} == {200}
    assert old.sql(SUM) == before
    tidy(old, "17", "postgres")
    add_row(UPGRADES, f"a restore that fails            {outcome.report['said'][:110]}")


def test_what_fails_its_proof_is_undone(old: ComposeCheckout, add_row: AddRow) -> None:
    """The old server serves again on its own volume; the new one's is kept, and has to go before the next try."""
    before = old.sql(SUM)
    old.configure(bake_seconds=LONG_BAKE)
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("prove")
    old.sql(f"DROP TABLE {TABLE} CASCADE")
    outcome = upgrade.finish()
    old.configure(bake_seconds=SHORT_BAKE)
    assert (outcome.code, outcome.verdict) == (1, "undone"), str(outcome)
    assert old.sql(SUM) == before
    tidy(old, "17", "postgres", "postgres-18")
    again = old.run("upgrade-database", "--yes", "--json")
    assert again.code == 2
    assert f"`docker volume rm {old.project}_postgres-18` if nobody needs it" in again.problems()[0]
    deploy = old.deploy()
    assert deploy.code == 1, str(deploy)
    assert "has a copy of the data, and what was written since is not in it" in deploy.reason
    assert old.sql(VERSION) == "17"
    add_row(UPGRADES, f"a proof that fails              {outcome.report['said'][:110]}")


def test_ctrl_c_while_nobody_writes_is_undone(old: ComposeCheckout) -> None:
    """They write again."""
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("last restore")
    upgrade.send(signal.SIGINT)
    outcome = upgrade.finish()
    assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
    tidy(old, "17", "postgres")


@pytest.mark.parametrize("stage", in_gate(["last restore", "switch"], "switch"))
def test_a_killed_one_is_healed(old: ComposeCheckout, stage: str, add_row: AddRow) -> None:
    """By the next command; a deploy does not take the copy for the data, and the next try is proved."""
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
        assert "upgrade-database -- compose` moves it" in deploy.problems()[0]
        assert tell(old, "upgrade-database", "--yes").verdict == "proved"
    ids = set(old.sql(f"SELECT string_agg(id::text, ' ') FROM {TABLE}").split())
    assert writers.acknowledged() <= ids
    tidy(old, "18", "postgres", "postgres-18")
    said = f"PostgreSQL {major} serves after the next deploy, none of {len(writers.acknowledged())} writes lost"
    add_row(UPGRADES, f"kill -9 in {stage:13}        {said}")
