"""The story of a drill, and what `doctor` says of backups."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.config.backup_policy import BackupPolicy
from pipeline.data.checkup import check_backups
from pipeline.data.records import DataRecords
from tests.pipeline.deploy.fake_backups import summary
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import World


def made_hours_ago(hours: float, **values: Any) -> dict[str, Any]:
    """Return the summary of a backup with data of then."""
    return summary(snapshot=(datetime.now(UTC) - timedelta(hours=hours)).isoformat(), **values)


def checked(world: World) -> tuple[list[str], str]:
    """Return what `doctor` finds wrong with the backups, and what it says of them."""
    checkup = check_backups(world.target, DataRecords.of(world.target.project, world.target.env.name))
    return list(checkup.findings), checkup.said


@pytest.fixture(name="watched")
def _watched(served: World) -> World:
    """The environment says how old its newest backup may be."""
    configure(served, BackupPolicy())
    return served


def configure(world: World, policy: BackupPolicy | None) -> None:
    """Let the table of the environment have this for `backups`."""
    target = world.target
    target.env = target.env.model_copy(update={"backups": policy})
    target.project = target.project.model_copy(update={"environments": {target.env.name: target.env}})


class TestADrill:
    def test_reports_the_age_of_the_backup_and_how_long_it_took(self, watched: World) -> None:
        """RPO and RTO, in words and in seconds; the newest backup is the one that is tried."""
        watched.target.backups.summaries = [made_hours_ago(30, name="20261127T100000Z-00000a"), made_hours_ago(3)]
        watched.target.backups.pending = ["0002"]
        code, document = watched.run("drill", "--json")
        assert (code, document["verdict"]) == (0, "proved")
        assert (document["rpo_seconds"] // 60, document["rto_seconds"]) == (180, 3.0)
        assert (document["migrated"], document["sent"], document["rows"]) == (["0002"], 2, 3)
        assert document["backup"]["name"] == summary()["name"]
        assert document["said"].endswith("RPO 3 h (the age of the backup), RTO 3 s (until it answered)")
        findings, said = checked(watched)
        assert findings == []
        assert re.fullmatch(r"the newest backup is 3 h old; the last drill, [\d.]+ s ago, found nothing wrong", said)

    def test_without_a_backup_says_what_to_do(self, served: World) -> None:
        """That is what it is there to find: a failure, and not a wrong argument."""
        code, document = served.run("drill", "--json")
        assert (code, document["reason"]) == (1, "here has no backup to try: `nox -s backup -- here`")

    def test_fails_with_a_backup_that_is_no_good(self, watched: World) -> None:
        """`doctor` says so until one passes."""
        watched.target.backups.summaries = [made_hours_ago(1)]
        watched.target.backups.bad = {summary()["name"]: "toc.dat is not what was written: use another backup"}
        code, document = watched.run("drill", "--json")
        assert (code, document["verdict"]) == (1, "failed")
        [finding], _ = checked(watched)
        assert " ago, failed: toc.dat is not what was written: use another backup: `nox -s drill -- here`" in finding

    def test_fails_with_one_that_is_too_old(self, watched: World) -> None:
        """It can be restored, and nobody wants what it has. Where nobody said what is too old, nothing is."""
        watched.target.backups.summaries = [made_hours_ago(30)]
        code, document = watched.run("drill", "--json")
        assert code == 1
        assert (
            document["reason"]
            .partition(", and ")[2]
            .startswith("it is 30 h old, where backups.max_age is 24h; RPO 30 h")
        )
        configure(watched, None)
        assert watched.run("drill", "--json")[0] == 0


class TestDoctor:
    def test_misses_nothing_that_nobody_asked_for(self, served: World) -> None:
        """Nor does it ask the program."""
        assert checked(served) == ([], "")
        assert "list" not in served.target.asked

    def test_misses_a_backup_and_a_drill(self, watched: World) -> None:
        """Each with the command that mends it."""
        [finding], said = checked(watched)
        assert finding.startswith("there is no backup: `nox -s backup -- here` makes one (run `nox -s backup")
        watched.target.backups.summaries = [made_hours_ago(1)]
        [finding], said = checked(watched)
        assert finding == "no backup was ever tried: `nox -s drill -- here`"
        assert said == "the newest backup is 60 min old"

    def test_finds_the_newest_too_old(self, watched: World) -> None:
        """Even where a drill has passed."""
        watched.target.backups.summaries = [made_hours_ago(25)]
        watched.target.backups.scheduled = {
            "verdict": "proved",
            "started": "",
            "finished": datetime.now(UTC).isoformat(),
        }
        [finding], said = checked(watched)
        assert "it is 25 h old, where backups.max_age is 24h: `nox -s backup -- here`" in finding
        assert said.endswith(" s ago, found nothing wrong")

    def test_says_what_is_wrong_where_they_are_kept(self, watched: World) -> None:
        """A server that the programs cannot dump is found before the night."""
        watched.target.backups.summaries = [made_hours_ago(1)]
        watched.target.backups.problem = "PostgreSQL 19 serves, and pg_dump is 18: take the programs of 19"
        assert "PostgreSQL 19 serves, and pg_dump is 18: take the programs of 19" in checked(watched)[0]

    def test_names_a_story_that_died(self, served: World) -> None:
        """With its stage."""
        served.target.backups.summaries = [made_hours_ago(1)]
        served.target.fails["drill"] = Killed()
        with pytest.raises(Killed):
            served.run("drill")
        assert checked(served)[0] == ["the drill of record 1 (data) died in stage `drill`"]
