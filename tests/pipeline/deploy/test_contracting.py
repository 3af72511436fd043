"""A deploy whose migration takes something away: behind a backup that is young enough, or one that it makes first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.config.backup_policy import BackupPolicy
from pipeline.errors import Interrupted, ProgramFailed
from tests.pipeline.deploy.fake_backups import summary
from tests.pipeline.deploy.world import FIRST, SECOND, World, migration, outcomes, release

DROPS = migration("0002", contract_after="0001")
EMPTIES = migration("0002", destroys="nobody reads it")


def made_hours_ago(hours: float, **values: Any) -> dict[str, Any]:
    """A backup with data of then, which took two minutes."""
    at = datetime.now(UTC) - timedelta(hours=hours)
    times = {"started": at.isoformat(), "snapshot": at.isoformat(), "finished": (at + timedelta(minutes=2)).isoformat()}
    return summary(**{**times, **values})


@pytest.fixture(name="kept")
def _kept(served: World) -> World:
    """An environment whose data is worth a backup a day."""
    target = served.target
    target.env = target.env.model_copy(update={"backups": BackupPolicy()})
    target.project = target.project.model_copy(update={"environments": {target.env.name: target.env}})
    return served


def asked(world: World) -> list[str]:
    """What the database and its backups were asked, in order."""
    return [
        line.split()[0] for line in world.target.asked if line.startswith(("list", "backup", "rehearse", "upgrade"))
    ]


class TestAContractingMigration:
    @pytest.mark.parametrize("taking", [DROPS, EMPTIES])
    def test_makes_a_backup_where_there_is_none(self, kept: World, taking: Any) -> None:
        """After its rehearsal, in `check`, before anything is touched."""
        told = kept.deploy(release("b", "0002"), FIRST, taking)
        assert told.verdict == "proved"
        assert asked(kept) == ["rehearse", "list", "backup", "upgrade"]
        assert kept.target.asked.index("backup") < kept.target.asked.index("prepare b")
        said = "migration 0002 takes something away, and there is no backup yet, so nobody knows how long it takes"
        assert f"{said}: one is made first" in kept.said
        assert "backed up as 20261128T160000Z-000001, here: 5 rows, 2.05 kB in 2 s" in kept.said

    def test_makes_one_where_the_last_is_too_old(self, kept: World) -> None:
        """And says before it begins how long the last one took."""
        kept.target.backups.summaries = [made_hours_ago(30)]
        assert kept.deploy(release("b", "0002"), FIRST, DROPS).verdict == "proved"
        assert (
            "no backup is younger than 24h (the last one is 30 h old, and took 2 min for 2.05 kB): one is" in kept.said
        )
        assert asked(kept) == ["rehearse", "list", "backup", "upgrade"]

    def test_is_content_with_a_young_one(self, kept: World) -> None:
        """Which is named."""
        kept.target.backups.summaries = [made_hours_ago(3)]
        assert kept.deploy(release("b", "0002"), FIRST, DROPS).verdict == "proved"
        assert asked(kept) == ["rehearse", "list", "upgrade"]
        assert f"takes something away: backup {summary()['name']} is 3 h old" in kept.said

    def test_makes_none_in_a_dry_run(self, kept: World) -> None:
        """But says that it would."""
        assert kept.deploy(release("b", "0002"), FIRST, DROPS, dry_run=True).verdict == "unchanged"
        assert asked(kept) == ["rehearse", "list"]
        assert "one would be made first" in kept.said

    @pytest.mark.parametrize("verb", ["list", "backup"])
    def test_does_not_run_without_one(self, kept: World, verb: str) -> None:
        """Nothing was touched; the line says why there is none."""
        kept.target.fails[verb] = ProgramFailed("backend.backups", "BACKUP_FOLDER: /backups is full: make room")
        told = kept.deploy(release("b", "0002"), FIRST, DROPS)
        assert (told.code, told.verdict, told.report.rollback) == (1, "failed", None)
        assert told.stages() == outcomes(until="check", last="failed")
        assert told.reason == (
            "migration 0002 takes something away, and no backup could be made first: python -m backend.backups:"
            " BACKUP_FOLDER: /backups is full: make room"
        )
        assert kept.target.database.applied == {"0001": ""}

    def test_can_be_interrupted_meanwhile(self, kept: World) -> None:
        """Nothing was touched."""
        kept.target.fails["backup"] = Interrupted("stopped by SIGINT")
        told = kept.deploy(release("b", "0002"), FIRST, DROPS)
        assert (told.code, told.verdict, told.report.rollback) == (130, "interrupted", None)

    def test_is_content_with_one_that_is_not_off_the_host(self, kept: World) -> None:
        """Whole is enough here; that it is nowhere else is said."""
        kept.target.backups.problem = "s3://bucket does not answer: try again"
        assert kept.deploy(release("b", "0002"), FIRST, DROPS).verdict == "proved"
        assert "s3://bucket does not answer: try again" in kept.said

    def test_makes_it_once_the_database_was_started(self, kept: World) -> None:
        """Where `check` could not ask."""
        kept.target.fleet.down(volumes=False)
        assert kept.deploy(release("b", "0002"), FIRST, DROPS).verdict == "proved"
        assert asked(kept) == ["rehearse", "list", "backup", "upgrade"]
        assert kept.target.asked.index("prepare b") < kept.target.asked.index("backup")


class TestWithoutANeed:
    def test_no_backup_is_asked_for(self, kept: World) -> None:
        """By a migration that only adds, by none, and by the first of an empty database."""
        assert kept.deploy(release("b", "0002"), FIRST, SECOND).verdict == "proved"
        assert kept.deploy(release("c", "0002"), FIRST, SECOND).verdict == "proved"
        assert not {"list", "backup"} & set(asked(kept))

    def test_nothing_is_backed_up_where_nobody_asked_for_it(self, served: World) -> None:
        """A line says so: the data of a laptop is often worth none."""
        told = served.deploy(release("b", "0002"), FIRST, DROPS)
        assert told.verdict == "proved"
        assert asked(served) == ["rehearse", "upgrade"]
        assert (
            "no backup is made first, as here has no `backups` in pyproject.toml: `nox -s backup -- here`"
            in served.said
        )

    def test_an_empty_database_has_nothing_to_lose(self, world: World) -> None:
        """Whatever its migrations drop on their way."""
        world.target.env = world.target.env.model_copy(update={"backups": BackupPolicy()})
        assert world.deploy(release("a", "0002"), FIRST, DROPS).verdict == "proved"
        assert not {"list", "backup"} & set(asked(world))
