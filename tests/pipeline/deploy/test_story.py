"""A deploy from its plan to its record, whatever goes wrong in between."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.requests import RequestSpec
from pipeline.errors import DeployFailed, Interrupted, LockHeld, SlipwayError, UsageError
from pipeline.proof.traffic import GeneratorDied
from pipeline.releases.model import Loss
from tests.pipeline.deploy.fake_target import Killed
from tests.pipeline.deploy.world import World, migration, release

FIRST = migration("0001")
SECOND = migration("0002")
SHIPPED = ["plan", "build", "check", "migrate", "roll out", "prove"]
EVIDENCE = ["begun.json", "report.json", "report.md", "timeline.svg"]


@pytest.fixture
def served(world: World) -> World:
    """Release a serves, migrated to 0001."""
    world.serve(release("a", "0001"), FIRST)
    return world


def outcomes(*, until: str, last: str) -> list[tuple[str, str]]:
    """Return the stages until one that ended otherwise."""
    names = SHIPPED[: SHIPPED.index(until) + 1]
    return [(name, "ok") for name in names[:-1]] + [(until, last)]


class TestADeploy:
    def test_proves_the_first_release(self, world: World) -> None:
        """Each stage in its order, on what was empty."""
        told = world.deploy(release("a", "0001"), FIRST)
        assert (told.code, told.verdict, told.report.reason) == (0, "proved", None)
        assert told.stages() == [(name, "ok") for name in SHIPPED]
        assert world.serving == ["a", "a"]
        assert world.target.database.applied == {"0001": ""}
        assert [one.name for one in told.traffic.phases] == ["bake", "bake"]  # nothing was there before

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
        assert [one.name for one in traffic.phases] == ["baseline", "rollout", "bake"]

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
        assert told.traffic.baseline == 2

    def test_ships_a_recorded_release_by_its_number(self, served: World) -> None:
        """It is built no more, and the record says what it was made from."""
        begun = served.target.records().folder / "1" / "begun.json"
        begun.write_text(begun.read_text().replace('"commit": null', '"commit": "abc"'))
        assert served.deploy(release("b")).code == 0
        told = served.deploy(reference="1")
        assert (told.code, told.verdict, told.report.release, told.report.previous) == (0, "proved", "a", "b")
        assert "build" not in served.target.asked
        assert served.file(3, "begun.json")["commit"] == "abc"

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


class TestForward:
    def commit(self, root: Path) -> str:
        """Commit nothing, and return the commit's name."""
        git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    def test_takes_nobody_back(self, world: World) -> None:
        """A late run of an older commit is refused, one of the same is not; without it, anything goes."""
        root = world.target.project.root
        subprocess.run(["git", "init", "--quiet", root], check=True)
        older, newer = self.commit(root), self.commit(root)
        assert world.deploy(forward=True).code == 0
        assert world.deploy(release("b"), forward=True).code == 0
        subprocess.run(["git", "-C", root, "checkout", "--quiet", older], check=True)
        with pytest.raises(UsageError, match=f"deployed from {newer[:12]}, which is newer than {older[:12]}"):
            world.deploy(release("c"), forward=True)
        assert (world.serving, len(world.records)) == (["b", "b"], 2)
        assert world.deploy(release("c")).code == 0

    def test_refuses_what_it_cannot_compare(self, world: World) -> None:
        """What serves is of a commit that this clone has not."""
        root = world.target.project.root
        subprocess.run(["git", "init", "--quiet", root], check=True)
        self.commit(root)
        assert world.deploy(forward=True).code == 0
        world.target.records().note(world.records[0], commit="f" * 40)
        with pytest.raises(UsageError, match="not in this clone"):
            world.deploy(release("b"), forward=True)


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


class TestAReleaseThatFails:
    def test_in_the_rollout_is_undone(self, served: World) -> None:
        """What served before does again, and that is proved."""
        served.target.fleet.unready.add("b")
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.code, told.verdict) == (1, "rolled_back")
        assert "never got ready" in told.reason
        assert told.stages() == outcomes(until="roll out", last="failed")
        assert told.stages(back=True) == [("roll back", "ok"), ("prove", "ok")]
        rollback = told.rollback
        assert (rollback.release, rollback.verdict, rollback.reason) == ("a", "proved", None)
        assert rollback.traffic
        assert rollback.traffic.by_release["a"].failed == 0
        assert served.serving == ["a", "a"]
        assert [one.verdict for one in served.records] == ["proved", "rolled_back"]

    def test_under_traffic_is_undone_before_all_are_replaced(self, served: World) -> None:
        """The first wrong answers end the rollout."""
        served.target.fleet.breaks["b"] = ["/list"]
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "rolled_back")
        assert "× 5xx, all answered by release b (first: GET /list → 500)" in told.reason
        assert told.traffic.by_release["b"].failed > 0
        assert told.stages() == outcomes(until="roll out", last="failed")
        assert served.serving == ["a", "a"]

    def test_in_the_proof_is_undone(self, served: World) -> None:
        """A request that the old one does not know is asked when the new one is alone."""
        served.target.fleet.breaks["b"] = ["/new"]
        told = served.deploy(release("b", None, RequestSpec(name="new", method="GET", path="/new")))
        assert (told.code, told.verdict) == (1, "rolled_back")
        assert "2 × 5xx, all answered by release b (first: GET /new → 500)" in told.reason
        assert told.stages() == outcomes(until="prove", last="failed")
        assert told.traffic.by_release["b"].failed == 2
        assert served.serving == ["a", "a"]

    def test_by_the_word_of_the_engine_is_undone(self, served: World) -> None:
        """Though all answers were right: a replica of it ended."""
        served.target.meanwhile["dismiss"] = lambda: setattr(served.target.watch, "ended", "replica 2 ended by itself")
        served.target.meanwhile["roll back"] = lambda: setattr(served.target.watch, "ended", None)  # that one is gone
        told = served.deploy(release("b"))
        assert (told.verdict, told.report.reason) == ("rolled_back", "replica 2 ended by itself")

    def test_by_being_slow_is_measured_twice(self, served: World) -> None:
        """And the figures say so."""
        served.target.fleet.slow.add("b")
        told = served.deploy(release("b"))
        assert told.verdict == "rolled_back"
        assert "release b is slow: p95 900 ms" in told.reason
        assert [one.name for one in told.traffic.phases] == ["baseline", "rollout", "bake", "confirm"]
        assert told.traffic.failures["slow"].count > 0

    @pytest.mark.parametrize("broken", [False, True])
    def test_as_the_first_one_is_withdrawn(self, world: World, broken: bool) -> None:
        """There is nothing to go back to, so nothing serves."""
        if broken:
            world.target.fleet.breaks["a"] = ["/list"]
        else:
            world.target.fleet.unready.add("a")
        told = world.deploy(release("a", "0001"), FIRST)
        assert (told.code, told.verdict) == (1, "failed")
        rollback = told.rollback
        assert (rollback.release, rollback.verdict) == (None, "failed")
        assert rollback.reason == "there is no earlier release: nothing is serving"
        assert told.stages(back=True) == [("roll back", "ok")]
        assert world.serving == []

    def test_and_cannot_be_undone_says_so(self, served: World) -> None:
        """Exit code 1, and somebody has to look: which is why, twice."""
        served.target.fleet.unready |= {"a", "b"}
        served.target.fails["roll out"] = DeployFailed("b does not start")
        del served.target.fleet.replicas[0]
        told = served.deploy(release("b"))
        assert (told.code, told.verdict, told.report.reason) == (1, "failed", "b does not start")
        rollback = told.rollback
        assert (rollback.release, rollback.verdict) == ("a", "failed")
        assert "never got ready" in str(rollback.reason)
        assert told.stages(back=True) == [("roll back", "failed")]
        assert "the rollback failed, too" in served.said
        assert served.records[-1].verdict == "failed"

    def test_and_comes_back_broken_says_so(self, served: World) -> None:
        """What serves again is proved, too: here, it fails as it did before."""
        served.target.fleet.breaks |= {"a": ["/list"], "b": ["/list"]}
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "failed")
        assert told.stages(back=True) == [("roll back", "ok"), ("prove", "failed")]
        assert "answered by release a" in str(told.rollback.reason)
        assert served.serving == ["a", "a"]


class TestTheWayBack:
    """What only watches it, or notes where it stands, does not stop it."""

    @pytest.fixture(name="broken")
    def _broken(self, served: World) -> World:
        """Release b never gets ready."""
        served.target.fleet.unready.add("b")
        served.target.releases.tree = release("b")
        return served

    @pytest.mark.parametrize("error", [SlipwayError("the cluster does not answer"), OSError(errno.ENOSPC, "full", "x")])
    @pytest.mark.parametrize("stage", ["roll back", "prove"])
    def test_is_gone_without_a_note(self, broken: World, stage: str, error: Exception) -> None:
        """A full disk may be why the deploy failed."""
        broken.target.meanwhile["roll out"] = lambda: broken.target.fails.update({f"note {stage}": error})
        told = broken.deploy()
        assert (told.verdict, told.rollback.verdict, broken.serving) == ("rolled_back", "proved", ["a", "a"])
        assert "the evidence is incomplete" in broken.said

    @pytest.mark.parametrize("error", [SlipwayError("the generator hung"), OSError(errno.ENOMEM, "no memory")])
    def test_is_gone_without_traffic(self, broken: World, error: Exception) -> None:
        """Which then starts with the proof."""
        broken.target.meanwhile["roll out"] = lambda: broken.target.fails.update({"traffic": error})
        told = broken.deploy()
        assert (told.verdict, told.rollback.verdict, broken.serving) == ("rolled_back", "proved", ["a", "a"])
        assert "goes unwatched" in broken.said

    def test_is_gone_while_the_traffic_dies(self, broken: World) -> None:
        """The old release serves, and what is not proved is said."""
        broken.target.meanwhile["roll back"] = lambda: broken.target.fails.update(
            {"snapshot": GeneratorDied("it died")}
        )
        del broken.target.fleet.replicas[0]
        told = broken.deploy()
        assert (told.verdict, told.rollback.reason) == ("failed", "it died")
        assert broken.serving == ["a", "a"]

    def test_ends_in_a_record_whatever_it_meets(self, broken: World) -> None:
        """A fault of our own, too."""
        broken.target.fails["roll back"] = AssertionError("oh")
        told = broken.deploy()
        assert (told.code, told.verdict) == (1, "failed")
        reason = "a fault in the pipeline itself: AssertionError: oh"
        assert told.rollback.reason == reason
        assert "Traceback (most recent call last)" in broken.said
        assert broken.records[-1].verdict == "failed"


# The stage, what fails in it, and whether something that runs was touched by then.
PLACES = [
    ("build", "build", False),
    ("check", "objections", False),
    ("check", "rehearse", False),
    ("migrate", "prepare", True),
    ("migrate", "traffic", True),
    ("migrate", "upgrade", True),
    ("roll out", "roll out", True),
    ("roll out", "snapshot", True),
    ("prove", "dismiss", True),
    ("roll out", "trouble", True),
]
FULL = OSError(errno.ENOSPC, "No space left on device", "/full")


class TestWhateverComesBetween:
    """In each stage: what was touched is undone, what was not is left alone, and the record tells of it."""

    def stopped(self, world: World, where: str, error: BaseException, *, touched: bool) -> tuple[int, str, str, str]:
        """Deploy while `error` comes; return exit code, verdict, reason, and how the last stage ended."""
        world.target.fails[where] = error
        told = world.deploy(release("b", "0002"), FIRST, SECOND)
        assert world.serving == ["a", "a"]
        assert world.target.fails == {}
        assert world.target.holder() is None
        assert ("roll back a" in world.target.asked) is touched
        rollback = told.report.rollback
        assert (rollback.verdict if rollback else None) == ("proved" if touched else None)
        assert world.records[-1].verdict == told.verdict
        assert world.file(2, "report.json") == told.report.document()
        assert "the evidence is incomplete" not in world.said
        stage, outcome = told.stages()[-1]
        assert world.file(2, "begun.json")["stage"] == ("prove" if touched else stage)
        return told.code, told.verdict, told.reason, f"{stage}: {outcome}"

    @pytest.mark.parametrize(("stage", "where", "touched"), PLACES)
    def test_an_interrupt(self, served: World, stage: str, where: str, touched: bool) -> None:
        """Exit code 130, also where it was undone."""
        found = self.stopped(served, where, Interrupted("stopped by SIGINT"), touched=touched)
        assert found == (130, "interrupted", "stopped by SIGINT", f"{stage}: interrupted")

    @pytest.mark.parametrize(("stage", "where", "touched"), PLACES)
    def test_an_error_of_the_machine(self, served: World, stage: str, where: str, touched: bool) -> None:
        """A full disk is a failure like any other."""
        verdict = "rolled_back" if touched else "failed"
        found = self.stopped(served, where, FULL, touched=touched)
        assert found == (1, verdict, "No space left on device: /full", f"{stage}: failed")

    @pytest.mark.parametrize(("stage", "where", "touched"), PLACES)
    def test_a_fault_of_our_own(self, served: World, stage: str, where: str, touched: bool) -> None:
        """With its traceback, for whoever mends it."""
        verdict = "rolled_back" if touched else "failed"
        found = self.stopped(served, where, AssertionError("oh"), touched=touched)
        reason = "a fault in the pipeline itself: AssertionError: oh"
        assert found == (1, verdict, reason, f"{stage}: failed")
        assert "Traceback (most recent call last)" in served.said

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
            (OSError("no route"), "no route"),
        ],
    )
    def test_an_error_without_a_file_has_its_words_alone(self, served: World, error: OSError, reason: str) -> None:
        """A connection has no name, and some errors no number."""
        assert self.stopped(served, "objections", error, touched=False)[2] == reason

    def test_an_interrupt_of_a_first_deploy(self, world: World) -> None:
        """What was shipped is withdrawn."""
        world.target.fails["dismiss"] = Interrupted("stopped by SIGTERM")
        told = world.deploy()
        assert (told.code, told.verdict, world.serving) == (130, "interrupted", [])
        assert told.rollback.reason == "there is no earlier release: nothing is serving"

    def test_an_interrupt_that_cannot_be_undone(self, served: World) -> None:
        """A failure then, whatever began it."""
        served.target.fails |= {"snapshot": Interrupted("stopped by SIGINT"), "roll back": FULL}
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "failed")
        assert told.report.reason == "stopped by SIGINT"
        assert "No space left" in str(told.rollback.reason)

    def test_an_interrupt_before_the_release_is_there(self, served: World) -> None:
        """The report names the one that was asked for, as the record does."""
        served.target.fails["note build"] = Interrupted("stopped by SIGINT")
        told = served.deploy(reference="1")
        assert (told.verdict, told.report.release, served.records[-1].release) == ("interrupted", "a", "a")

    @pytest.mark.parametrize("where", ["roll back", "publish"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_while_it_is_undone_and_recorded(self, served: World, where: str, number: signal.Signals) -> None:
        """It gets an answer, and has no effect."""
        heard: list[int] = []
        before = signal.signal(number, lambda number, _: heard.append(number))
        try:
            served.target.fleet.unready.add("b")
            served.target.meanwhile[where] = lambda: os.kill(os.getpid(), number)
            told = served.deploy(release("b"))
            assert (told.verdict, served.serving, heard) == ("rolled_back", ["a", "a"], [])
            assert "already undoing and recording" in served.said
            os.kill(os.getpid(), number)
            assert heard == [number]  # afterwards, it is heard again
        finally:
            signal.signal(number, before)


class TestAKilledDeploy:
    @pytest.fixture(name="killed")
    def _killed(self, served: World) -> World:
        """A deploy of b died while it was rolled out; what it had written is gone from the service already."""
        served.target.fails["snapshot"] = Killed()
        with pytest.raises(Killed):
            served.deploy(release("b"))
        journal = served.records[-1].folder / "rollout-writes.jsonl"
        journal.write_text("")
        return served

    def test_leaves_what_it_began(self, killed: World) -> None:
        """No report: that is how it is known."""
        assert killed.serving == ["a", "b"]
        assert [one.verdict for one in killed.records] == ["proved", None]
        assert killed.file(2, "begun.json")["stage"] == "roll out"

    def test_is_mended_by_the_next_one(self, killed: World) -> None:
        """Its evidence is written and told, what it wrote is removed; the next one is a deploy like any other."""
        told = killed.deploy()
        assert (told.code, told.verdict, told.report.previous) == (0, "proved", "a")
        assert killed.serving == ["b", "b"]
        assert [one.verdict for one in killed.records] == ["proved", "interrupted", "proved"]
        folder = killed.records[1].folder
        assert sorted(path.name for path in folder.iterdir()) == EVIDENCE
        report = killed.file(2, "report.json")
        assert (report["release"], report["finished"]) == ("b", None)
        assert report["reason"] == "the deploy died in stage `roll out`, without a report"
        assert [line for line in killed.target.asked if line.startswith(("heal", "publish"))] == [
            *("heal", "publish 2", "publish 3")
        ]
        assert "the deploy of release record 2 died in stage `roll out`: cleaning up" in killed.said

    def test_is_mended_by_one_that_is_refused(self, killed: World) -> None:
        """It comes first: evidence, and what was written."""
        killed.target.releases.objects = ["no"]
        assert killed.deploy().verdict == "failed"
        assert [one.verdict for one in killed.records] == ["proved", "interrupted", "failed"]
        assert sorted(path.name for path in killed.records[1].folder.iterdir()) == EVIDENCE

    def test_is_no_reason_to_trust_what_runs(self, killed: World) -> None:
        """Also where what serves is to serve and nothing differs, it is rolled out and proved again."""
        killed.target.fleet.replicas = []
        assert killed.deploy(release("a", "0001"), FIRST).verdict == "proved"
        killed.target.records().begin({"stage": "plan"})
        assert killed.deploy().verdict == "proved"
        assert killed.deploy().verdict == "unchanged"

    def test_judges_only_the_new_one_after_it(self, killed: World) -> None:
        """What a killed deploy left may be broken: that is not the next one's fault."""
        killed.target.meanwhile["roll out"] = lambda: killed.target.fleet.breaks.update({"b": ["/list"]})
        told = killed.deploy(release("c"))
        assert told.verdict == "proved"
        assert told.traffic.by_release["b"].failed > 0

    def test_is_left_alone_by_a_dry_run(self, killed: World) -> None:
        """It would change something."""
        killed.deploy(dry_run=True)
        assert [one.verdict for one in killed.records] == ["proved", None]
        assert "heal" not in killed.target.asked

    def test_whose_processes_are_gone_is_rolled_out_again(self, served: World) -> None:
        """A machine that was started anew has no open record, and what should run was not there."""
        served.target.fleet.replicas = [replace(one, ready=False) for one in served.target.fleet.replicas]
        assert served.deploy().verdict == "proved"
        assert served.serving == ["a", "a"]


class TestTheRecord:
    def test_holds_the_evidence_and_is_told_once(self, served: World) -> None:
        """Three files beside what it began with; nothing that is needed is pruned."""
        told = served.deploy(release("b"))
        assert sorted(path.name for path in served.records[-1].folder.iterdir()) == EVIDENCE
        assert served.file(2, "report.json") == told.report.document()
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
