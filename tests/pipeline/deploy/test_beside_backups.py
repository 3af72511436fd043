"""A deploy whose migrations meet a backup: it says so before anything is touched, or ends the backup."""

from __future__ import annotations

from tests.pipeline.deploy.world import FIRST, SECOND, World, outcomes, release

RUNS = "since 3 min (pid 4711, here-backup)"
REFUSAL = f"a backup runs {RUNS}: wait, or deploy with --cancel-backup; nothing was changed"


class TestABackupThatRuns:
    def test_keeps_migrations_out_before_anything_is_touched(self, served: World) -> None:
        """Nor is anything rehearsed for nothing; once it has ended, the same deploy ships."""
        served.target.database.backup = RUNS
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.code, told.verdict, told.report.rollback) == (1, "failed", None)
        assert told.stages() == outcomes(until="check", last="failed")
        assert told.reason == REFUSAL
        assert not any(line.startswith(("prepare", "rehearse", "upgrade", "roll")) for line in served.target.asked)
        served.target.database.backup = None
        assert served.deploy().verdict == "proved"

    def test_is_in_nobodys_way_without_a_migration(self, served: World) -> None:
        """It goes on, with or without the option."""
        served.target.database.backup = RUNS
        assert served.deploy(release("b", "0001"), FIRST).verdict == "proved"
        assert served.deploy(release("c", "0001"), FIRST, cancel_backup=True).verdict == "proved"
        assert "no migration is pending, so no backup is ended" in served.said
        assert served.target.database.backup == RUNS
        assert not [line for line in served.target.asked if line.startswith("cancel")]

    def test_is_ended_where_it_was_asked_for(self, served: World) -> None:
        """Right before the migrations, and it is said."""
        served.target.database.backup = RUNS
        told = served.deploy(release("b", "0002"), FIRST, SECOND, cancel_backup=True)
        assert told.verdict == "proved"
        assert f"the backup that runs {RUNS} is ended before the first migration (--cancel-backup)" in served.said
        asked = served.target.asked
        assert asked.index("rehearse b beside a") < asked.index(f"cancel {RUNS}") < asked.index("roll out b")

    def test_stays_in_a_dry_run_that_would_end_it(self, served: World) -> None:
        """A dry run without the option is refused, as the deploy would be."""
        served.target.database.backup = RUNS
        told = served.deploy(release("b", "0002"), FIRST, SECOND, cancel_backup=True, dry_run=True)
        assert (told.verdict, served.target.database.backup) == ("unchanged", RUNS)
        assert served.deploy(dry_run=True).reason == REFUSAL

    def test_that_began_after_the_check_is_undone(self, served: World) -> None:
        """As the migrations ask once more."""
        served.target.meanwhile["prepare"] = lambda: setattr(served.target.database, "backup", RUNS)
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.verdict, told.reason, told.rollback.verdict) == ("rolled_back", REFUSAL, "proved")
        assert served.target.database.applied == {"0001": ""}

    def test_is_unknown_to_a_release_of_before(self, served: World) -> None:
        """Whose command would refuse a word that it does not know."""
        served.target.database.excludes, served.target.database.backup = False, None
        assert served.deploy(release("b", "0002"), FIRST, SECOND, cancel_backup=True).verdict == "proved"

    def test_is_ended_by_the_command_line(self, served: World) -> None:
        """`nox -s deploy -- ENV --cancel-backup`."""
        served.target.database.backup = RUNS
        served.target.releases.tree = release("b", "0002")
        served.target.database.migrations_of["b"] = [FIRST, SECOND]
        assert served.run("deploy")[0] == 1
        assert served.run("deploy", "--cancel-backup")[0] == 0
        assert served.target.database.backup is None
