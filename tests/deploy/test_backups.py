"""Backups on this machine: made under writes, restored, tried, and what each bad one or each kill leaves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.checkout import Checkout
from tests.deploy.keeping import DIGEST, Writers, kept, told
from tests.deploy.machine import wait_until

pytestmark = pytest.mark.e2e

MOST_SECONDS = 5.0  # that a swap may turn people away


@pytest.fixture(name="board")
def _board(deployed: Checkout) -> Iterator[Checkout]:
    """Yield the module's clone with some notes, and no backup."""
    for number in range(3):
        deployed.write_note(f"note {number}")
    yield deployed
    shutil.rmtree(deployed.home / "backups", ignore_errors=True)


def databases(checkout: Checkout) -> set[str]:
    """Return the databases on the server, but not what a swap put aside."""
    said: str = checkout.sql("SELECT string_agg(datname, ' ') FROM pg_database WHERE NOT datistemplate")
    return {name for name in said.split() if "-before-" not in name}


class TestARestore:
    @pytest.mark.gate
    def test_brings_back_a_table_that_somebody_dropped(self, board: Checkout) -> None:
        """Its rows and their checksum are those of the backup, the report says what is gone, and doctor is content."""
        backup, before = kept(board), board.sql(DIGEST)
        board.write_note("after the backup")
        board.sql("DROP TABLE testing_notes")
        assert board.request("GET", "/api/v1/testing-notes").status_code >= 500
        outcome = told(board, "restore", "--backup", backup["name"][:12], "--yes")
        assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
        assert board.sql(DIGEST) == before
        assert [one["name"] for one in outcome.report["stages"]] == [
            *("check", "verify", "restore", "try", "swap", "prove")
        ]
        aside = board.sql("SELECT datname FROM pg_database WHERE datname LIKE '%-before-%'")
        assert outcome.report["before"] == aside
        assert board.run("doctor").code == 0
        assert board.deploy().verdict == "unchanged"

    def test_turns_people_away_for_seconds_and_breaks_nothing(self, board: Checkout) -> None:
        """Writes get 503 with Retry-After, and no other failure; what is gone is counted, and said since when."""
        kept(board)
        with Writers(board) as writers:
            wait_until(lambda: len(writers.acknowledged()) > 20 or None, "some writes")
            outcome = told(board, "restore", "--backup", "latest", "--yes")
        assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
        refused = [one for one in writers.writes if one.status != 201]
        assert {one.status for one in refused} <= {503}
        assert all(one.retry_after for one in refused)
        window = outcome.report["window"]
        assert window["failed"] == 0
        assert window["seconds"] <= MOST_SECONDS
        away = max(one.ended for one in refused) - min(one.at for one in refused) if refused else 0.0
        assert away <= MOST_SECONDS
        assert 0 < outcome.report["lost"] <= len(writers.acknowledged())
        assert "will be gone" in outcome.stderr

    def test_beside_can_be_looked_into(self, board: Checkout) -> None:
        """What serves stays, and the next backup is not disturbed."""
        kept(board)
        before = board.sql(DIGEST)
        board.write_note("later")
        outcome = told(board, "restore", "--backup", "latest", "--database", "yesterday")
        assert (outcome.code, outcome.verdict) == (0, "done"), str(outcome)
        assert "yesterday" in databases(board)
        assert board.sql(DIGEST) != before
        again = told(board, "restore", "--backup", "latest", "--database", "yesterday")
        assert again.code == 1
        assert "there is a database yesterday already" in again.reason
        board.sql("DROP DATABASE yesterday")

    def test_waits_for_no_deploy(self, board: Checkout) -> None:
        """75, as a second deploy gets; nothing was touched."""
        kept(board)
        board.change("another release")
        deploy = board.start("deploy")
        deploy.wait_for_stage("build", "check", "migrate", "roll out")
        outcome = told(board, "restore", "--backup", "latest", "--yes")
        assert outcome.code == 75, str(outcome)
        assert deploy.finish().verdict == "proved"


class TestABackup:
    def test_has_each_write_acknowledged_before_its_snapshot(self, board: Checkout, tmp_path: Path) -> None:
        """And is made while people write."""
        with Writers(board) as writers:
            wait_until(lambda: len(writers.acknowledged()) > 20 or None, "some writes")
            began = time.monotonic()
            backup = kept(board)
        assert {one.status for one in writers.writes} == {201}
        assert told(board, "restore", "--backup", "latest", "--yes").code == 0
        for ident in writers.acknowledged(until=began):
            assert board.request("GET", f"/api/v1/testing-notes/{ident}").status_code == 200
        assert backup["release"] == board.status()["release"]

    def test_can_be_taken_away_as_files(self, board: Checkout, tmp_path: Path) -> None:
        """Checked; one file that is not what was written is a failure."""
        backup = kept(board)
        outcome = told(board, "restore", "--backup", "latest", "--download", str(tmp_path / "files"))
        assert outcome.code == 0, str(outcome)
        manifest = json.loads((tmp_path / "files/manifest.json").read_text())
        assert manifest["name"] == backup["name"]
        assert {path.name for path in (tmp_path / "files").iterdir()} >= {one["path"] for one in manifest["files"]}

    def test_outlives_what_it_is_of(self, checkout: Checkout) -> None:
        """`down --volumes` removes the data; a deploy and a restore bring it back."""
        checkout.proved()
        checkout.write_note("kept")
        kept(checkout)
        before = checkout.sql(DIGEST)
        assert checkout.run("down", "--volumes").code == 0
        checkout.proved()
        assert checkout.sql(DIGEST) != before
        assert told(checkout, "restore", "--backup", "latest", "--yes").code == 0
        assert checkout.sql(DIGEST) == before


class TestADrill:
    def test_reports_rpo_and_rto(self, board: Checkout) -> None:
        """Nothing of the environment is touched."""
        assert told(board, "drill").reason == "local has no backup to try: `nox -s backup -- local`"
        kept(board)
        outcome = told(board, "drill")
        assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
        assert 0 <= outcome.report["rpo_seconds"] < 60
        assert 0 < outcome.report["rto_seconds"] < 60
        assert "ERROR:" not in outcome.stderr  # as PostgreSQL and its programs say it
        assert databases(board) == {"postgres", board.settings()["POSTGRES_DB"]}
