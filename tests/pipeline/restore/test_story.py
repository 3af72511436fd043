"""The story of a restore: what it asks of a target, and what it leaves, however it ends."""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.project import Environment, Project
from pipeline.config.requests import RequestSpec
from pipeline.data.records import DataRecords
from pipeline.deploy.proving import Proof
from pipeline.errors import DeployFailed, Interrupted, LockHeld, ProgramFailed, SlipwayError, UsageError
from pipeline.proof.answers import NoAnswer
from pipeline.proof.exchange import Exchange
from pipeline.restore.story import RestoreStory
from pipeline.restore.window import Ask
from pipeline.system.progress import Progress
from pipeline.targets import Target
from tests.pipeline.deploy.fake_backups import SERVING, FakeBackups, summary
from tests.pipeline.deploy.fake_traffic import FakeTraffic
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import World

NAME = summary()["name"]
BESIDE = "restored_20261128t160000z_000001"
BEFORE = f"before_{BESIDE}"
STAGES = ["check", "verify", "restore", "try", "swap", "prove"]
SWAPPED = ["list", f"verify {NAME}", f"restore {NAME} --into {BESIDE}", f"trial a on {BESIDE}", f"compare {BESIDE}",
           f"swap {SERVING} {BESIDE}"]  # fmt: skip


@pytest.fixture(name="kept")
def _kept(served: World) -> World:
    """A backup with 3 rows is there; 5 are served."""
    served.target.backups.summaries = [summary()]
    return served


def backups_of(world: World) -> FakeBackups:
    """Return the fake ones."""
    return world.target.backups


def records_of(world: World) -> DataRecords:
    """Return the records of the stories."""
    return DataRecords.of(world.target.project, world.target.env.name)


def ask_fake(world: World) -> Ask:
    """Return what asks the fake fleet; while a database is swapped, it turns everybody away."""

    def ask(spec: RequestSpec) -> tuple[bool, str]:
        try:
            answer, _ = world.target.fleet.answer(Exchange.new(spec).call())
        except NoAnswer as error:
            return False, str(error)
        return False, "" if answer.status == spec.status else str(answer.status)

    return ask


def restored(world: World, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Restore as the command line does; return the exit code and the report."""

    def begin(project: Project, env: Environment, progress: Progress, target: Target) -> RestoreStory:
        proof = partial(Proof, traffic=partial(FakeTraffic, world.target), baseline_seconds=0)
        times = {"quiet_seconds": 0.0, "recovery_seconds": 2.0}
        return RestoreStory(project, env, progress, target, proof=proof, answered=lambda *_: ask_fake(world), **times)

    from pipeline.__main__ import parser

    given = ["restore", world.target.env.name, "--backup", "latest", "--json", *arguments]
    options = parser("restore").parse_args(given)
    world.target.asked.clear()
    code, document = options.run(
        world.target.project, options, world.progress(), opened=world.target.opened, begin=begin
    )
    return code, document


def stages(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the outcome of each stage."""
    return [(one["name"], one["outcome"]) for one in document["stages"]]


def asked(world: World) -> list[str]:
    """Return what was asked of the program and of the trial."""
    verbs = ("list", "verify", "restore", "trial", "compare", "swap", "drop")
    return [line for line in world.target.asked if line.startswith(verbs)]


class TestARestore:
    def test_swaps_in_what_was_tried_and_proves_it(self, kept: World) -> None:
        """The database of before is kept."""
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (0, "proved")
        assert stages(document) == [(name, "ok") for name in STAGES]
        assert asked(kept) == SWAPPED
        assert backups_of(kept).databases == {SERVING: 3, BEFORE: 5}
        assert (document["before"], document["lost"], document["sessions"]) == (BEFORE, 2, 2)
        assert document["traffic"]["failed"] == 0

    def test_says_what_will_be_gone_before_it_asks(self, kept: World) -> None:
        """How many rows, and since when."""
        _, document = restored(kept, "--yes")
        line = "what was written to here since 2026-11-28T16:00:00+00:00"
        assert line in kept.said
        assert "will be gone: 2 rows (2 of releases)" in kept.said
        assert document["since"] == "2026-11-28T16:00:00+00:00"
        assert any(remark.startswith(line) for remark in document["remarks"])

    def test_writes_nothing_from_check_to_the_swap(self, kept: World) -> None:
        """What the proof sends begins after it."""
        restored(kept, "--yes")
        assert kept.target.asked.index("traffic bake") > kept.target.asked.index(f"swap {SERVING} {BESIDE}")
        assert [line for line in kept.target.asked if line.startswith(("traffic", "watch"))] == ["traffic bake"]

    def test_holds_the_lock_of_a_deploy(self, kept: World) -> None:
        """Neither runs beside the other."""
        with kept.target.lock(), pytest.raises(LockHeld):
            restored(kept, "--yes")
        assert asked(kept) == []
        assert records_of(kept).all() == []

    def test_asks_at_a_terminal(self, kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever does not agree has changed nothing."""
        answers = iter(["yes\n", "y\n", ""])

        class Terminal:
            def isatty(self) -> bool:
                return True

            def readline(self) -> str:
                return next(answers)

        monkeypatch.setattr(sys, "stdin", Terminal())
        assert restored(kept)[0] == 0
        for _ in range(2):
            code, document = restored(kept)
            assert (code, document["verdict"]) == (1, "declined")
            assert asked(kept) == [*SWAPPED[:-1], f"drop {BESIDE}"]

    def test_is_refused_where_nobody_can_be_asked(self, kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before anything is done."""
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(UsageError, match="add `--yes`"):
            restored(kept)
        assert kept.target.asked == []

    def test_beside_is_not_swapped(self, kept: World) -> None:
        """Nor does it ask; the database stays under its name."""
        code, document = restored(kept, "--database", "yesterday")
        assert (code, document["verdict"]) == (0, "done")
        assert asked(kept) == ["list", f"verify {NAME}", f"restore {NAME} --into yesterday", "trial a on yesterday"]
        assert backups_of(kept).databases == {SERVING: 5, "yesterday": 3}

    def test_can_be_downloaded(self, kept: World, tmp_path: Path) -> None:
        """To a new folder."""
        code, document = restored(kept, "--download", str(tmp_path / "new"))
        assert (code, document["backup"]["name"]) == (0, NAME)
        assert (tmp_path / "new/manifest.json").exists()
        with pytest.raises(UsageError, match="is there already"):
            restored(kept, "--download", str(tmp_path / "new"))

    def test_what_cannot_be_downloaded_leaves_no_folder(self, kept: World, tmp_path: Path) -> None:
        """Or only what is in it already."""
        kept.target.fails["fetch"] = SlipwayError("the files are in the cluster")
        with pytest.raises(SlipwayError, match="in the cluster"):
            restored(kept, "--download", str(tmp_path / "new"))
        assert not (tmp_path / "new").exists()

    def test_takes_a_backup_by_the_beginning_of_its_name(self, kept: World) -> None:
        """One that means none, or two, is refused and leaves no record."""
        backups_of(kept).summaries.append(summary("20261127T160000Z-000002"))
        assert restored(kept, "--yes", "--backup", "20261127")[1]["backup"]["name"] == "20261127T160000Z-000002"
        with pytest.raises(UsageError, match="fits more than one"):
            restored(kept, "--yes", "--backup", "2026")
        with pytest.raises(UsageError, match="has no backup `2025`: `nox -s backups -- here` lists them"):
            restored(kept, "--yes", "--backup", "2025")
        assert len(records_of(kept).all()) == 1


class TestARestoreThatIsRefused:
    def test_leaves_a_damaged_backup_alone(self, kept: World) -> None:
        """It is checked first."""
        backups_of(kept).bad = {NAME: "3097.dat.zst is not what was written: use another backup"}
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (1, "failed")
        assert asked(kept) == SWAPPED[:2]
        assert document["said"].endswith("use another backup; nothing that serves was touched")

    def test_does_not_know_a_newer_schema(self, kept: World) -> None:
        """It says which release does."""
        backups_of(kept).schema = "newer"
        code, document = restored(kept, "--yes")
        assert code == 1
        assert (
            "is of revision 0001, which release a does not know: deploy the release that made it" in document["reason"]
        )
        assert asked(kept) == SWAPPED[:2]

    def test_drops_what_does_not_answer(self, kept: World) -> None:
        """Nobody was sent to it."""
        kept.target.fleet.breaks_alone = {"a": ["/list"]}
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (1, "failed")
        assert "does not answer on the restored database" in document["reason"]
        assert backups_of(kept).databases == {SERVING: 5}
        assert asked(kept) == [*SWAPPED[:4], f"drop {BESIDE}"]

    def test_keeps_what_somebody_asked_for_by_its_name(self, kept: World) -> None:
        """It may be what they want to look at."""
        kept.target.fleet.breaks_alone = {"a": ["/list"]}
        assert restored(kept, "--database", "yesterday")[0] == 1
        assert backups_of(kept).databases == {SERVING: 5, "yesterday": 3}

    def test_can_be_interrupted(self, kept: World) -> None:
        """What was restored is dropped."""
        kept.target.fails["compare"] = Interrupted("stopped by SIGINT")
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (130, "interrupted")
        assert backups_of(kept).databases == {SERVING: 5}


class TestARestoreThatIsUndone:
    def test_swaps_back_where_the_proof_fails(self, kept: World) -> None:
        """And proves that."""
        breaks = kept.target.fleet.breaks
        kept.target.meanwhile["traffic"] = lambda: breaks.update({"a": ["/one"]})
        kept.target.meanwhile["dismiss"] = breaks.clear
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (1, "undone")
        assert asked(kept)[-2:] == [f"swap {SERVING} {BESIDE}", f"swap {SERVING} {BEFORE}"]
        assert backups_of(kept).databases[SERVING] == 5
        assert [(one["name"], one["outcome"]) for one in document["undone"]["stages"]] == [
            ("swap back", "ok"),
            ("prove", "ok"),
        ]
        assert document["said"].endswith("; the database of before serves again")

    def test_says_loudly_that_it_could_not_be(self, kept: World) -> None:
        """With the command that says what is wrong."""
        kept.target.meanwhile["traffic"] = lambda: kept.target.fleet.breaks.update({"a": ["/one"]})
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"], document["undone"]["verdict"]) == (1, "failed", "failed")
        assert "WHAT SERVED BEFORE COULD NOT BE BROUGHT BACK" in document["said"]

    def test_has_nothing_to_swap_back_where_the_swap_failed(self, kept: World) -> None:
        """The program left the names as they were."""
        kept.target.fails["swap"] = ProgramFailed("backend.backups", "a session does not end")
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (1, "failed")
        assert backups_of(kept).databases == {SERVING: 5}
        assert document["said"].endswith("a session does not end; the database of before still serves")

    def test_finds_out_whether_a_swap_that_was_stopped_is_done(self, kept: World) -> None:
        """It was: the answer was lost."""
        backups, swap = backups_of(kept), backups_of(kept)._swap

        def lost(serving: str, wanted: str) -> dict[str, Any]:
            backups._swap = swap  # type: ignore[method-assign]
            swap(serving, wanted)
            raise Interrupted("stopped by SIGTERM")

        backups._swap = lost  # type: ignore[method-assign]
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (130, "interrupted")
        assert backups.databases[SERVING] == 5
        assert document["said"].endswith("; the database of before serves again")

    def test_does_not_ask_more_than_was_before(self, kept: World) -> None:
        """What failed before the swap may fail after it was taken back."""
        kept.target.fleet.breaks = {"a": ["/one"]}
        code, document = restored(kept, "--yes")
        assert (code, document["verdict"]) == (1, "undone")
        assert document["window"]["failed"] == 0
        assert document["window"]["before"][0] > 0


class TestARestoreThatWasKilled:
    @pytest.mark.parametrize("step", ["verify", "restore", "trial", "compare"])
    def test_before_its_swap_is_dropped(self, kept: World, step: str) -> None:
        """By the next deploy, or the next restore."""
        kept.target.fails[step] = Killed()
        with pytest.raises(Killed):
            restored(kept, "--yes")
        assert len(records_of(kept).dead()) == 1
        assert kept.deploy().code == 0
        assert backups_of(kept).databases == {SERVING: 5}
        [record] = records_of(kept).all()
        assert record.verdict == "interrupted"
        assert record.reason
        assert "nothing that serves was touched" in record.reason

    @pytest.mark.parametrize("done", [True, False])
    def test_in_its_swap_is_swapped(self, kept: World, done: bool) -> None:
        """Half a swap turns everybody away, so it is done; and what serves then is proved by the deploy."""
        backups, swap = backups_of(kept), backups_of(kept)._swap

        def kill(serving: str, wanted: str) -> dict[str, Any]:
            backups._swap = swap  # type: ignore[method-assign]
            if done:
                swap(serving, wanted)
            raise Killed

        backups._swap = kill  # type: ignore[method-assign]
        with pytest.raises(Killed):
            restored(kept, "--yes")
        told = kept.deploy()
        assert (told.verdict, backups.databases) == ("proved", {SERVING: 3, BEFORE: 5})
        [record] = records_of(kept).all()
        assert record.reason
        assert record.reason.startswith("it died in stage `swap`: what serves now was not proved")
        assert record.reason.endswith(f" is {BEFORE}")

    def test_in_its_proof_is_named(self, kept: World) -> None:
        """Nothing is half done, and nothing was proved."""
        kept.target.fails["dismiss"] = Killed()
        with pytest.raises(Killed):
            restored(kept, "--yes")
        code, document = restored(kept, "--yes")
        assert (code, document["number"]) == (0, 2)
        [first, _] = records_of(kept).all()
        assert first.reason
        assert "it died in stage `prove`: what serves now was not proved" in first.reason

    def test_is_not_forgotten_where_it_cannot_be_mended(self, kept: World) -> None:
        """The next command tries again."""
        kept.target.fails["compare"] = Killed()
        with pytest.raises(Killed):
            restored(kept, "--yes")
        kept.target.fails["drop"] = DeployFailed("the database does not answer")
        assert kept.deploy().code == 0
        assert "what it left is still there: the database does not answer" in kept.said
        assert len(records_of(kept).dead()) == 1
