"""The story of a backup, and the list of those that there are."""

from __future__ import annotations

import json

import pytest

from pipeline.data.records import DataRecords
from pipeline.errors import Interrupted, ProgramFailed, UsageError
from tests.pipeline.deploy.fake_backups import FakeBackups, summary
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import World

FULL = ProgramFailed("backend.backups", "BACKUP_FOLDER: /backups is full: nothing was kept; make room")


def backups_of(world: World) -> FakeBackups:
    """Return the fake ones, to be told what they say."""
    return world.target.backups


def records_of(world: World) -> DataRecords:
    """Return the records of the stories."""
    return DataRecords.of(world.target.project, world.target.env.name)


class TestABackup:
    def test_is_told_in_stages_with_a_report(self, served: World) -> None:
        """On standard output as JSON, in a folder as JSON and as text."""
        code, document = served.run("backup", "--json")
        assert (code, document["verdict"], document["kind"]) == (0, "done", "backup")
        assert [(one["name"], one["outcome"]) for one in document["stages"]] == [("check", "ok"), ("dump", "ok")]
        assert (document["bytes"], document["rows"], document["seconds"]) == (2048, 5, 2.0)
        [record] = records_of(served).all()
        assert json.loads((record.folder / "report.json").read_text()) == document
        text = (record.folder / "report.md").read_text()
        assert "| `releases` | 5 |" in text
        assert "20261128T160000Z-000001, here: 5 rows, 2.05 kB in 2 s, 1.02 kB/s" in served.said + text
        assert served.target.asked == ["list", "backup"]

    def test_takes_no_lock_of_a_deploy(self, served: World) -> None:
        """A deploy may run; what would not get along is kept apart in the database."""
        with served.target.lock():
            assert served.run("backup")[0] == 0

    def test_that_fails_is_no_backup(self, served: World) -> None:
        """Its report says why."""
        served.target.fails["backup"] = FULL
        code, document = served.run("backup", "--json")
        assert (code, document["verdict"], document["backup"]) == (1, "failed", None)
        assert document["reason"] == FULL.problems[0]
        assert "The backup of here failed: python -m backend.backups: BACKUP_FOLDER" in document["said"]

    def test_that_is_not_away_is_a_failure(self, served: World) -> None:
        """It is whole here, and would go with this host."""
        backups_of(served).problem = "s3://bucket does not answer: try again"
        code, document = served.run("backup", "--json")
        assert (code, document["verdict"], document["backup"]["here"]) == (1, "failed", True)
        assert document["reason"] == "s3://bucket does not answer: try again"

    def test_says_what_shrank_and_that_nobody_encrypted_it(self, served: World) -> None:
        """Neither is a failure."""
        backups_of(served).next = {"shrunken": [{"name": "public.releases", "rows": 5, "before": 4000}]}
        code, document = served.run("backup", "--json")
        assert code == 0
        assert document["remarks"] == [
            "public.releases has 5 rows, and had 4,000",
            "it is not encrypted: BACKUP_RECIPIENTS is not set",
        ]

    def test_needs_something_that_is_deployed(self, world: World) -> None:
        """The program is the release's."""
        code, document = world.run("backup", "--json")
        assert (code, document["reason"]) == (1, "nothing is deployed to here yet: `nox -s deploy -- here` first")

    def test_can_be_interrupted(self, served: World) -> None:
        """The program removes what it began."""
        served.target.fails["backup"] = Interrupted("stopped by SIGINT")
        assert served.run("backup", "--json")[0] == 130
        assert [one.verdict for one in records_of(served).all()] == ["interrupted"]

    def test_that_was_killed_is_noted_by_the_next_one(self, served: World) -> None:
        """One that runs meanwhile is not."""
        served.target.fails["backup"] = Killed()
        with pytest.raises(Killed):
            served.run("backup")
        assert [one.stage for one in records_of(served).dead()] == ["dump"]
        with records_of(served).running("backup", {"started": "2026-11-28T16:00:00+00:00"}):
            assert served.run("backup")[0] == 0
            assert [one.verdict for one in records_of(served).all()] == ["interrupted", None, "done"]

    def test_of_bad_settings_is_refused_without_a_record(self, served: World) -> None:
        """Nothing was begun."""
        served.target.fails["list"] = UsageError("BACKUP_ADDRESS: must look like s3://…")
        with pytest.raises(UsageError):
            served.run("backup")
        assert records_of(served).all() == []


class TestTheList:
    def test_is_a_table(self, served: World) -> None:
        """Newest first, with what is needed to choose one."""
        older = summary("20261127T160000Z-aaaaaa", snapshot="2026-11-27T16:00:00+00:00", encrypted=["age1"], away=True)
        backups_of(served).summaries = [older, summary()]
        code, document = served.run("backups", "--json")
        assert code == 0
        assert [one["name"] for one in document["backups"]] == [summary()["name"], older["name"]]
        assert document["max_age_seconds"] == 24 * 3600

    def test_shows_where_each_is(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """One that is not encrypted stands out."""
        backups_of(served).summaries = [summary(away=True)]
        assert served.run("backups")[0] == 0
        head, line = (one.split() for one in capsys.readouterr().out.splitlines())
        assert head == ["name", "age", "size", "rows", "release", "revision", "encrypted", "where"]
        assert line[0] == summary()["name"]
        assert line[3:] == ["2.05", "kB", "3", "a", "0001", "no", "here", "and", "off", "the", "host"]

    def test_says_what_to_do_where_there_is_none(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """And which place does not answer."""
        assert served.run("backups")[0] == 0
        assert "there is no backup yet: `nox -s backup -- here`" in capsys.readouterr().out
        backups_of(served).problem = "s3://bucket does not answer"
        assert served.run("backups", "--json") == (1, {
            "environment": "here", "backups": [], "max_age_seconds": 86400, "problem": "s3://bucket does not answer"
        })  # fmt: skip

    def test_names_the_projects_whose_backups_are_there_instead(self, served: World) -> None:
        """As on a new host, whose .env has another PROJECT_NAME; where there are own ones, nobody cares."""
        backups_of(served).others = ["shop"]
        assert served.run("backups")[0] == 0
        assert "the backups here are of another project, shop: to restore one, set PROJECT_NAME in .env" in served.said
        backups_of(served).summaries = [summary()]
        before = served.said
        assert served.run("backups")[0] == 0
        assert "another project" not in served.said.removeprefix(before)
