"""A deploy from its plan to its record, whatever goes wrong in between."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.deploy.evidence import summary_line
from pipeline.errors import DeployFailed, Interrupted, LockHeld, SlipwayError, UsageError
from pipeline.releases.model import Loss
from tests.pipeline.deploy.world import FIRST, FULL, LIST, ONE, SECOND, SHIPPED, World, migration, outcomes, release

EVIDENCE = ["begun.json", "deploy.log", "report.json", "report.md", "requests.svg", "timeline.svg"]


class TestADeploy:
    def test_proves_the_first_release(self, world: World) -> None:
        """Each stage in its order, on what was empty."""
        told = world.deploy(release("a", "0001"), FIRST)
        assert (told.code, told.verdict, told.report.reason) == (0, "proved", None)
        assert told.stages() == [(name, "ok") for name in SHIPPED]
        assert world.serving == ["a", "a"]
        assert world.target.database.applied == {"0001": ""}
        assert [one.name for one in told.traffic.phases] == ["bake"]  # nothing was there before

    def test_proves_an_update(self, served: World) -> None:
        """What served is measured, then the database is expanded, then the fleet is replaced under traffic."""
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.code, told.verdict, told.report.previous) == (0, "proved", "a")
        assert served.serving == ["b", "b"]
        changed = ("build", "rehearse", "prepare", "traffic", "upgrade", "roll")
        assert [line for line in served.target.asked if line.startswith(changed)] == [
            *("build", "rehearse b beside a", "prepare b", "traffic baseline", "upgrade b", "roll out b")
        ]
        traffic = told.traffic
        assert (traffic.failed, sorted(traffic.by_release)) == (0, ["a", "b"])
        assert [one.name for one in traffic.phases] == ["build", "baseline", "rollout", "bake"]

    def test_says_which_request_has_another_name(self, served: World) -> None:
        """Both releases are asked it during the rollout, so it is compared under the new one."""
        new = replace(release("b"), requests=(LIST, ONE.model_copy(update={"name": "just one"})))
        told = served.deploy(new)
        assert "the request `one` has the name `just one` now" in told.report.remarks
        assert told.traffic.comparison
        assert [one.request for one in told.traffic.comparison.requests if one.effect] == ["list", "just one"]

    def test_changes_nothing_where_all_is_there(self, served: World) -> None:
        """The same release, complete and migrated: no traffic, and it is said."""
        told = served.deploy()
        assert (told.code, told.verdict, told.report.reason) == (0, "unchanged", None)
        assert told.stages() == outcomes(until="check", last="ok")
        assert "prepare a" not in served.target.asked
        assert [one.verdict for one in served.records] == ["proved", "unchanged"]

    def test_mends_what_is_not_complete(self, served: World) -> None:
        """The same release with a replica less is rolled out again."""
        del served.target.fleet.replicas[0]
        assert served.deploy().verdict == "proved"
        assert served.serving == ["a", "a"]

    def test_tells_of_requests_that_fail_during_the_build(self, served: World) -> None:
        """A build may starve what serves beside it; that judges nobody, and is in the log and in the report."""
        breaks = served.target.fleet.breaks
        breaks["a"] = ["/list"]
        served.target.meanwhile["build"] = breaks.clear
        told = served.deploy(release("b"))
        assert (told.verdict, told.traffic.failed, told.traffic.baseline) == ("proved", 2, 2)
        assert told.report.remarks == ("2 of 4 requests failed during the build, before anything of it was there",)

    def test_watches_no_build_where_nothing_is_built_or_serves(self, served: World) -> None:
        """A dry run sends nothing at all; a recorded release is built by nobody."""
        served.deploy(release("b"), dry_run=True)
        assert "watch build" not in served.target.asked
        served.deploy(reference="1")
        assert "watch build" not in served.target.asked
        served.target.fleet.replicas.clear()
        assert served.deploy(release("b")).verdict == "proved"
        assert "watch build" not in served.target.asked

    def test_that_is_dry_changes_nothing(self, served: World) -> None:
        """Plan, build and check; no record stays, and a release that would be refused is refused."""
        before = dict(served.target.database.applied)
        told = served.deploy(release("b", "0002"), FIRST, SECOND, dry_run=True)
        assert (told.code, told.verdict) == (0, "unchanged")
        assert told.report.reason == "this was a dry run of release b"
        assert (served.serving, served.target.database.applied) == (["a", "a"], before)
        assert not {"heal", "prepare b", "publish 2", "prune", "attest"} & set(served.target.asked)
        assert [one.number for one in served.records] == [1]
        served.target.releases.objects = ["no"]
        assert served.deploy(dry_run=True).code == 1
        assert [one.number for one in served.records] == [1]

    def test_ships_a_fix_of_what_fails_already(self, served: World) -> None:
        """Where the baseline fails, the new release's answers judge alone."""
        served.target.fleet.breaks["a"] = ["/list"]
        told = served.deploy(release("b"))
        assert told.verdict == "proved"
        assert told.traffic.baseline == 4  # two in the build, two after it

    def test_ships_a_recorded_release_by_its_number(self, served: World) -> None:
        """It is built no more, and the record says what it was made from."""
        begun = served.target.records().folder / "1" / "begun.json"
        begun.write_text(begun.read_text().replace('"commit": null', '"commit": "abc"'))
        assert served.deploy(release("b")).code == 0
        told = served.deploy(reference="1")
        assert (told.code, told.verdict, told.report.release, told.report.previous) == (0, "proved", "a", "b")
        assert "build" not in served.target.asked
        assert served.file(3, "begun.json")["commit"] == "abc"

    def test_says_where_a_rollback_would_lead_from_here(self, served: World) -> None:
        """What the report advises is what `rollback` then does: after one it may do nothing more."""
        told = [served.deploy(release("b")), served.deploy(release("c")), served.deploy(reference="2")]
        told.append(served.deploy(reference="1"))
        assert [one.report.back for one in told] == ["a", "b", "a", None]
        folders = [record.folder for record in served.records][1:]
        advice = [(folder / "report.md").read_text().partition("## What now")[2] for folder in folders]
        assert "`nox -s rollback -- here` goes back to release b." in advice[1]
        assert "rollback" not in advice[3]
        with pytest.raises(UsageError, match="none to go back to"):
            served.target.records().previous()

    def test_refuses_a_release_that_nobody_recorded(self, served: World) -> None:
        """Before anything is begun."""
        with pytest.raises(UsageError, match="no release `9`"):
            served.deploy(reference="9")
        served.target.releases.kept.clear()
        with pytest.raises(SlipwayError, match="release a is gone"):
            served.deploy(reference="1")
        assert [one.number for one in served.records] == [1]

    @pytest.mark.parametrize("reference", [None, "proved-there"])
    def test_takes_what_was_promoted(self, served: World, reference: str | None) -> None:
        """Asked for or not; the working tree has no part in it."""
        served.target.releases.promoted = "proved-there"
        served.target.releases.kept["proved-there"] = release("proved-there")
        told = served.deploy(reference=reference)
        assert (told.verdict, served.serving) == ("proved", ["proved-there"] * 2)
        assert "build" not in served.target.asked


class TestAPlanThatFails:
    def test_touches_nothing_and_records_nothing(self, world: World) -> None:
        """Each problem has its line; exit code 2."""
        world.target.wrong = ["one", "two"]
        with pytest.raises(UsageError) as refused:
            world.deploy()
        assert (refused.value.problems, refused.value.exit_code) == (("one", "two"), 2)
        assert (world.target.asked, world.records) == (["problems"], [])

    def test_waits_for_nobody(self, served: World) -> None:
        """A lock that is held is exit code 75, before what others did is looked at."""
        with served.target.lock(), pytest.raises(LockHeld, match="another deploy holds the lock") as held:
            served.deploy(release("b"))
        assert held.value.exit_code == 75
        assert served.target.asked == ["problems"]
        assert served.deploy().verdict == "proved"

    @pytest.mark.parametrize("where", ["problems", "refresh", "data problems", "heal"])
    def test_leaves_an_interrupt_alone(self, served: World, where: str) -> None:
        """There is nothing to undo or to record: exit code 130, and the lock is free."""
        served.target.fails[where] = Interrupted("stopped by SIGINT")
        with pytest.raises(Interrupted) as stopped:
            served.deploy(release("b"))
        assert stopped.value.exit_code == 130
        assert (served.serving, [one.number for one in served.records]) == (["a", "a"], [1])
        assert served.target.holder() is None

    def test_misses_the_data_of_proved_releases(self, served: World) -> None:
        """Unless it is said that it starts over."""
        served.target.database.gone = True
        with pytest.raises(UsageError, match="the data is gone"):
            served.deploy(release("b"))
        assert served.deploy(release("b"), empty_database=True).verdict == "proved"

    def test_expects_no_data_where_nothing_was_proved(self, world: World) -> None:
        """The first deploy makes it."""
        world.target.database.gone = True
        assert world.deploy().verdict == "proved"


class TestACheckThatRefuses:
    def refused(self, world: World) -> str:
        """Deploy; return why that was refused before anything was touched."""
        told = world.deploy()
        assert (told.code, told.verdict, told.report.rollback) == (1, "failed", None)
        assert told.stages() == outcomes(until="check", last="failed")
        assert world.serving == ["a", "a"]
        assert not any(line.startswith(("prepare", "upgrade", "roll", "traffic")) for line in world.target.asked)
        assert [one.verdict for one in world.records] == ["proved", "failed"]
        assert world.records[-1].reason == told.report.reason
        return told.reason

    def test_on_an_objection_of_the_engine(self, served: World) -> None:
        """The first is the reason, all are said."""
        served.target.releases.objects = ["one", "two"]
        served.target.releases.tree = release("b")
        assert self.refused(served) == "one"
        assert "✗ two" in served.said

    def test_on_a_migration_that_throws_rows_away(self, served: World) -> None:
        """Where it does not say why they may go."""
        served.target.releases.tree = release("b", "0002")
        served.target.database.migrations_of["b"] = [FIRST, migration("0002", losses=(Loss("TRUNCATE board", 7),))]
        assert "migration 0002 (m) destroys 7 rows: TRUNCATE board" in self.refused(served)

    def test_on_a_migration_that_takes_a_column_away(self, served: World) -> None:
        """The release that runs may need it."""
        served.target.releases.tree = release("b", "0002")
        served.target.database.migrations_of["b"] = [
            FIRST,
            migration("0002", sql="ALTER TABLE board DROP COLUMN notes;"),
        ]
        assert "takes away what the running release may need" in self.refused(served)

    def test_on_an_applied_migration_that_was_edited(self, served: World) -> None:
        """It would not run again."""
        served.target.releases.tree = release("b", "0001")
        served.target.database.migrations_of["b"] = [migration("0001", sql="SELECT 1;")]
        assert self.refused(served) == "migration 0001 was applied, and edited since"

    def test_on_a_rehearsal_that_fails(self, served: World) -> None:
        """The old release cannot live with the new schema."""
        served.target.releases.tree = release("b", "0002")
        served.target.database.migrations_of["b"] = [FIRST, SECOND]
        served.target.fails["rehearse"] = DeployFailed("release a answers 500 on the new schema")
        assert self.refused(served) == "release a answers 500 on the new schema"

    def test_on_nothing_to_prove_with(self, served: World) -> None:
        """A release without requests cannot be proved."""
        served.target.releases.tree = replace(release("b"), requests=())
        assert "declare [[tool.slipway.requests]]" in self.refused(served)

    def test_on_a_release_that_could_not_be_brought_back(self, served: World) -> None:
        """What serves is gone from where it was kept."""
        served.target.releases.kept.clear()
        served.target.releases.tree = release("b")
        assert "release a is serving and could not be brought back" in self.refused(served)

    def test_on_a_database_that_never_was_migrated(self, served: World) -> None:
        """Releases were proved here: it is another one; with --empty-database it starts over."""
        served.target.database.applied.clear()
        served.target.releases.tree = release("b", "0001")
        served.target.database.migrations_of["b"] = [FIRST]
        assert "it is not the one that they used" in self.refused(served)
        assert served.deploy(empty_database=True).verdict == "proved"
        assert served.target.database.applied == {"0001": ""}


class TestForgettingAMigration:
    def test_is_bad_usage_where_a_kept_release_needs_it(self, served: World) -> None:
        """Exit code 2, and nothing was touched."""
        assert served.deploy(release("b", "0002"), FIRST, SECOND).code == 0
        edited = migration("0002", sql="SELECT 2;")
        told = served.deploy(release("c", "0002"), FIRST, edited, forgotten="0002")
        assert (told.code, told.verdict, told.report.rollback) == (2, "failed", None)
        assert told.stages()[-1] == ("check", "failed")
        assert told.reason.startswith("migration 0002 cannot be forgotten: release b needs it")
        assert served.serving == ["b", "b"]

    def test_lets_it_run_anew(self, served: World) -> None:
        """It came with a release that was undone, so that nobody needs it."""
        served.target.fleet.unready.add("b")
        assert served.deploy(release("b", "0002"), FIRST, SECOND).verdict == "rolled_back"
        edited = migration("0002", sql="SELECT 2;")
        assert "edited since" in served.deploy(release("c", "0002"), FIRST, edited).reason
        assert served.deploy(forgotten="0002").verdict == "proved"
        assert served.target.database.applied == {"0001": "", "0002": "SELECT 2;"}
        again = served.deploy(forgotten="0002")  # a retry of the same command: what serves needs it now
        assert again.code == 2
        assert "cannot be forgotten: release c needs it" in again.reason


class TestADatabaseThatDidNotRun:
    """In `check`, it could not be asked."""

    def test_is_asked_once_it_was_started(self, served: World) -> None:
        """Its migrations are tried, then run as they were checked."""
        served.target.fleet.down(volumes=False)
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert told.verdict == "proved"
        started = served.target.asked.index("prepare b")
        assert served.target.asked[started : started + 4] == ["prepare b", "status b", "rehearse b", "upgrade b"]
        assert "its migrations are compared once it is" in served.said

    def test_refuses_without_an_undoing_where_nothing_serves(self, served: World) -> None:
        """Nothing that ran was touched."""
        served.target.fleet.down(volumes=False)
        told = served.deploy(release("b", "0002"), FIRST, migration("0002", losses=(Loss("TRUNCATE board", 7),)))
        assert (told.code, told.verdict, told.report.rollback) == (1, "failed", None)
        assert told.stages() == outcomes(until="migrate", last="failed")
        assert "destroys 7 rows" in told.reason
        assert (served.serving, served.target.database.applied) == ([], {"0001": ""})

    def test_refuses_with_an_undoing_where_something_serves(self, served: World) -> None:
        """What was prepared for the new release is taken back."""
        served.target.database.up = False
        told = served.deploy(release("b", "0002"), FIRST, migration("0002", losses=(Loss("TRUNCATE board", 7),)))
        assert (told.verdict, told.rollback.verdict) == ("rolled_back", "proved")
        assert "roll back a" in served.target.asked

    def test_is_left_with_the_old_release_where_the_new_one_fails(self, served: World) -> None:
        """Though nothing served: what was proved is started instead."""
        served.target.fleet.down(volumes=False)
        served.target.fleet.unready.add("b")
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.verdict, told.rollback.verdict) == ("rolled_back", "proved")
        assert served.serving == ["a", "a"]

    def test_is_upgraded_only_as_it_was_checked(self, served: World) -> None:
        """Somebody else migrated it between the check and the migration."""
        served.target.meanwhile["prepare"] = lambda: served.target.database.applied.update({"0009": ""})
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert told.verdict == "rolled_back"
        assert "nothing was changed" in told.reason


class TestTheRecord:
    def test_holds_the_evidence_and_is_told_once(self, served: World) -> None:
        """Three files and what was said, beside what it began with; nothing that is needed is pruned."""
        told = served.deploy(release("b"))
        assert sorted(path.name for path in served.records[-1].folder.iterdir()) == EVIDENCE
        assert served.file(2, "report.json") == told.report.document()
        said = [line[9:] for line in (served.records[-1].folder / "deploy.log").read_text().splitlines()]
        assert said[:2] == ["plan …", said[1]]
        assert [line.split()[1] for line in said if line.startswith("✓ ")] == [
            *("plan", "build", "check", "migrate", "roll", "prove", "record")
        ]
        calls = [line for line in served.target.asked if line.startswith(("publish", "prune", "attest"))]
        assert sorted(calls) == ["attest", "prune", "prune records", "publish 2"]
        assert served.target.releases.attested[-1] is told.report
        assert sorted(served.target.releases.kept) == ["a", "b"]

    def test_takes_the_occasion_to_remove_what_was_left(self, served: World) -> None:
        """A broken release may not have let go of what a proof had written to it."""
        journal = served.records[0].folder / "rollout-writes.jsonl"
        journal.write_text("")
        assert served.deploy(release("b")).code == 0
        assert not journal.exists()

    def test_removes_what_nobody_can_go_back_to(self, served: World) -> None:
        """The `retain` newest proved releases are kept."""
        for name in "bcd":
            assert served.deploy(release(name)).code == 0
        assert sorted(served.target.releases.kept) == ["b", "c", "d"]

    def test_is_attested_of_rollouts_alone(self, served: World) -> None:
        """A refused release was never tried."""
        served.target.releases.objects = ["no"]
        served.deploy(release("b"))
        assert [report.release for report in served.target.releases.attested] == []

    def test_has_what_was_seen_beside_the_service(self, served: World) -> None:
        """From inside, and by the engine itself."""
        served.target.watch.view = ("nothing was lost on the way", {"sent": 3})
        served.target.watch.noticed = ["a node was drained"]
        told = served.deploy(release("b"))
        assert told.report.inside == served.target.watch.view
        assert served.file(2, "report.json")["inside"] == {"said": "nothing was lost on the way", "sent": 3}
        assert served.file(2, "report.json")["remarks"] == list(told.report.remarks) == ["a node was drained"]
        assert "from inside: nothing was lost" in served.said

    @pytest.mark.parametrize("error", [SlipwayError("the registry is away"), FULL], ids=["away", "full"])
    @pytest.mark.parametrize("where", ["publish", "attest", "prune", "prune records"])
    def test_never_fails_a_deploy(self, served: World, where: str, error: Exception) -> None:
        """What is missing is said."""
        served.target.fails[where] = error
        told = served.deploy(release("b"))
        assert (told.code, told.verdict, served.serving) == (0, "proved", ["b", "b"])
        assert "the evidence is incomplete" in served.said
        assert served.records[-1].verdict == "proved"

    @pytest.mark.parametrize("verdict", ["proved", "unchanged", "rolled_back"])
    def test_names_what_is_degraded(self, served: World, verdict: str) -> None:
        """In its last line and in the report: the service does without it, and nobody else says so."""
        served.degraded = ["/ready is degraded: redis: away"]
        if verdict == "rolled_back":
            served.target.fleet.breaks["b"] = ["/list"]
        told = served.deploy(release("a" if verdict == "unchanged" else "b"))
        assert (told.verdict, told.report.remarks) == (verdict, ("/ready is degraded: redis: away",))
        assert summary_line(told.report).endswith("; /ready is degraded: redis: away")

    @pytest.mark.parametrize("error", [SlipwayError("away"), FULL, AssertionError("oh")], ids=["away", "full", "fault"])
    @pytest.mark.parametrize("where", ["second view", "remarks"])
    def test_does_without_what_cannot_be_asked(self, served: World, where: str, error: Exception) -> None:
        """The evidence is written all the same."""
        served.target.fails[where] = error
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (0, "proved")
        assert "the evidence is incomplete" in served.said
        assert sorted(path.name for path in served.records[-1].folder.iterdir()) == EVIDENCE

    @pytest.mark.parametrize("where", ["publish", "attest", "prune", "prune records"])
    def test_never_fails_a_deploy_by_a_fault_of_our_own(self, served: World, where: str) -> None:
        """Its traceback is said."""
        served.target.fails[where] = AssertionError("oh")
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (0, "proved")
        assert "Traceback (most recent call last)" in served.said
