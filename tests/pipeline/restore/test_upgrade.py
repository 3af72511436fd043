"""The story of a new major of PostgreSQL: what it asks of a target, and what it leaves, however it ends."""

from __future__ import annotations

import io
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pipeline.__main__ import parser
from pipeline.config.project import Environment, Project
from pipeline.config.requests import RequestSpec
from pipeline.data.records import DataRecords
from pipeline.deploy.proving import Proof
from pipeline.errors import DeployFailed, Interrupted, ProgramFailed, SlipwayError, UsageError
from pipeline.proof.exchange import Exchange
from pipeline.proof.smoke import Smoked
from pipeline.restore.upgrade import UpgradeStory
from pipeline.restore.window import Ask
from pipeline.system.progress import Progress
from pipeline.targets import Target
from tests.pipeline.deploy.fake_backups import summary
from tests.pipeline.deploy.fake_traffic import FakeTraffic
from tests.pipeline.deploy.fake_upgrade import PLAN, FakeUpgrade
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import LIST, World
from tests.pipeline.restore.test_story import ask_fake, stages

STAGES = ["check", "dump", "restore", "try", "close", "last dump", "last restore", "switch", "prove"]
FIRST, LAST = (f"20261128T160000Z-00000{number}" for number in (2, 3))
MOVED = ["list", "backup", "begin", f"fill {FIRST}", "trial a on the new server", "close", "backup",
         f"fill {LAST} while nobody writes", "switch"]  # fmt: skip
GONE = f"abandon {PLAN.place}"
DEPLOY = "`nox -s deploy -- here`"


@pytest.fixture(name="kept")
def _kept(served: World) -> World:
    served.target.backups.summaries = [summary()]
    return served


def upgrade_of(world: World) -> FakeUpgrade:
    return world.target.database.next


def upgraded(world: World, *arguments: str, ask: Ask | None = None) -> tuple[int, dict[str, Any]]:
    """Move the data as the command line does, and `ask` meanwhile; return the exit code and the report."""

    def begin(project: Project, env: Environment, progress: Progress, target: Target) -> UpgradeStory:
        proof = partial(Proof, traffic=partial(FakeTraffic, world.target), baseline_seconds=0)
        times = {"quiet_seconds": 0.0, "recovery_seconds": 2.0}
        return UpgradeStory(
            project, env, progress, target, proof=proof, answered=lambda *_: ask or ask_fake(world), **times
        )

    options = parser("upgrade-database").parse_args(["upgrade-database", world.target.env.name, "--json", *arguments])
    world.target.asked.clear()
    code, document = options.run(
        world.target.project, options, world.progress(), opened=world.target.opened, begin=begin
    )
    return code, document


def asked(world: World) -> list[str]:
    """What was asked of the program and of the two servers."""
    verbs = ("list", "backup", "begin", "fill", "trial", "close", "switch", "abandon", "go on")
    return [line for line in world.target.asked if line.startswith(verbs)]


def old_serves(world: World) -> bool:
    """Whether all is as it was before."""
    upgrade = upgrade_of(world)
    return upgrade.writable and not upgrade.new_serves and not upgrade.there


class TestAnUpgrade:
    def test_copies_twice_and_the_second_time_while_nobody_writes(self, kept: World) -> None:
        """What was acknowledged until then is in the copy that serves."""
        code, document = upgraded(kept, "--yes")
        assert (code, document["verdict"]) == (0, "proved")
        assert stages(document) == [(name, "ok") for name in STAGES]
        assert asked(kept) == MOVED
        assert upgrade_of(kept).new_serves
        assert upgrade_of(kept).copied == document["backup"]["name"] == LAST

    def test_says_what_is_kept_and_how_it_is_removed(self, kept: World) -> None:
        """And for how long nobody could write."""
        _, document = upgraded(kept, "--yes")
        assert document["closed_seconds"] >= 0
        assert document["said"].endswith(
            "the data of before is kept in volume board_postgres: `docker volume rm board_postgres` removes it"
        )
        assert "writes were refused for" in document["said"]

    def test_counts_from_the_switch_on_who_was_turned_away(self, kept: World) -> None:
        """Reads that were refused while only writes had to be are said apart, and make its seconds no longer."""

        def ask(spec: RequestSpec) -> tuple[bool, str]:
            assert spec.method == "GET"
            upgrade = upgrade_of(kept)
            return (True, "503") if not (upgrade.writable or upgrade.new_serves) else (False, "")

        slowly = {"fill": lambda: time.sleep(1)}
        kept.target.meanwhile["close"] = lambda: kept.target.meanwhile.update(slowly)
        code, document = upgraded(kept, "--yes", ask=ask)
        assert (code, document["verdict"]) == (0, "proved")
        window = document["window"]
        assert window["early"][0] > 0
        assert window["seconds"] < 0.5
        [remark] = document["remarks"]
        assert remark == f"{window['early'][0]} of {window['early'][1]} reads got 503 while only writes had to"

    def test_notes_what_serves_as_proved(self, kept: World) -> None:
        """So that a deploy that fails later does not bring the old server back."""
        kept.target.fleet.around = "new stores"
        upgraded(kept, "--yes")
        assert kept.target.fleet.kept == "new stores"

    def test_says_before_it_begins_what_it_will_do(self, kept: World) -> None:
        """Both versions, the size, the room, and how long the last backup took."""
        upgraded(kept, "--yes")
        assert "PostgreSQL 17.6 to 18: 2.05 kB, 4.1 kB free; the last backup took 2 s" in kept.said
        assert "writes to here will get 503 with Retry-After for about" in kept.said

    def test_names_what_stays_behind_and_what_the_next_backup_needs(self, kept: World) -> None:
        """Other databases are not copied; programs of an older major refuse the new server."""
        upgrade_of(kept).planned = replace(PLAN, others=("yesterday",))
        kept.target.backups.next = {"programs": "17.6"}
        _, document = upgraded(kept, "--yes")
        assert document["remarks"] == [
            "the database yesterday is not copied: it stays in volume board_postgres",
            f"the next backup needs the programs of PostgreSQL 18: {DEPLOY} ships a release that has them",
        ]

    def test_does_nothing_where_it_is_done(self, kept: World) -> None:
        """Once more is no fault, and leaves no record."""
        upgrade_of(kept).planned = None
        assert upgraded(kept, "--yes") == (0, {"environment": "here", "verdict": "unchanged"})
        assert asked(kept) == []
        assert DataRecords.of(kept.target.project, "here").all() == []

    def test_is_refused_where_it_cannot_be(self, kept: World) -> None:
        """Before anything is made."""
        upgrade_of(kept).refuses = "the volume has a database already"
        with pytest.raises(UsageError, match="has a database already"):
            upgraded(kept, "--yes")
        assert asked(kept) == []
        assert DataRecords.of(kept.target.project, "here").all() == []

    def test_asks_before_anybody_is_turned_away(self, kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever does not agree has changed nothing."""

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
        code, document = upgraded(kept)
        assert (code, document["verdict"]) == (1, "declined")
        assert asked(kept) == [*MOVED[:5], GONE]
        assert old_serves(kept)

    def test_is_refused_where_nobody_can_be_asked(self, kept: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Before anything is done."""
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(UsageError, match="add `--yes`"):
            upgraded(kept)
        assert kept.target.asked == []


class TestAnUpgradeThatIsUndone:
    @pytest.mark.parametrize("step", ["backup", "begin", "fill", "trial", "close"])
    @pytest.mark.parametrize("why", [DeployFailed("it broke"), Interrupted("stopped by SIGINT")], ids=["fails", "^C"])
    def test_before_the_switch_leaves_all_as_it_was(self, kept: World, step: str, why: BaseException) -> None:
        """The old server takes writes, and the new one is gone."""
        kept.target.fails[step] = why
        code, document = upgraded(kept, "--yes")
        assert code in (1, 130)
        assert document["said"].endswith("PostgreSQL 17.6 serves as before, and takes writes")
        assert old_serves(kept)

    @pytest.mark.parametrize("step", ["backup", "fill", "switch"])
    def test_while_nobody_writes_lets_them_write_again(self, kept: World, step: str) -> None:
        """A dump, a restore, a switch that fails."""
        kept.target.meanwhile["close"] = lambda: kept.target.fails.update({step: ProgramFailed("x", "it broke")})
        code, document = upgraded(kept, "--yes")
        assert (code, document["verdict"]) == (1, "failed")
        assert GONE in asked(kept)
        assert old_serves(kept)

    def test_refuses_what_does_not_answer_on_the_new_server(self, kept: World) -> None:
        """Before anybody is turned away."""
        failure = Exchange.new(LIST, "1" * 32).failure(
            "5xx", at=0.0, phase="smoke", release="a", status=500, detail="x"
        )
        upgrade_of(kept).wrote = Smoked(failures=(failure,))
        code, document = upgraded(kept, "--yes")
        assert code == 1
        assert "release a does not answer on PostgreSQL 18: GET /list: x" in document["reason"]
        assert "close" not in asked(kept)
        assert old_serves(kept)

    @pytest.mark.parametrize("how", ["starts", "proves"])
    def test_after_the_switch_brings_the_old_server_back_and_proves_it(self, kept: World, how: str) -> None:
        """It says where the writes since are; that data is not removed."""
        if how == "starts":
            kept.target.fails["started"] = DeployFailed("postgres ends as often as it starts")
        else:
            breaks = kept.target.fleet.breaks
            kept.target.meanwhile["traffic"] = lambda: breaks.update({"a": ["/one"]})
            kept.target.meanwhile["dismiss"] = breaks.clear
        code, document = upgraded(kept, "--yes")
        assert (code, document["verdict"]) == (1, "undone")
        assert [one["name"] for one in document["undone"]["stages"]] == ["switch back", "prove"]
        upgrade = upgrade_of(kept)
        assert (upgrade.writable, upgrade.new_serves, upgrade.there) == (True, False, True)
        assert "PostgreSQL 17.6 serves again, without what was written since" in document["said"]
        assert document["said"].endswith("which is in board_postgres-18")

    def test_says_loudly_that_it_could_not_be(self, kept: World) -> None:
        """With the command that says what is wrong."""
        kept.target.fails |= {"started": DeployFailed("it ended"), "switch back": SlipwayError("no engine answers")}
        code, document = upgraded(kept, "--yes")
        assert (code, document["verdict"]) == (1, "failed")
        assert "WHAT SERVED BEFORE COULD NOT BE BROUGHT BACK: no engine answers" in document["said"]


class TestAnUpgradeThatWasKilled:
    @pytest.mark.parametrize("step", ["backup", "begin", "fill", "trial", "close", "switch"])
    def test_before_the_switch_is_undone_by_the_next_command(self, kept: World, step: str) -> None:
        """Whatever that is."""
        kept.target.fails[step] = Killed()
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        assert kept.deploy().code == 0
        assert old_serves(kept)
        [record] = DataRecords.of(kept.target.project, "here").all()
        assert record.reason
        assert "PostgreSQL 17.6 serves as before" in record.reason

    @pytest.mark.parametrize("step", ["started", "dismiss"])
    def test_after_it_is_brought_to_its_end(self, kept: World, step: str) -> None:
        """Somebody may have written to the new server; it says where the old data is."""
        kept.target.fails[step] = Killed()
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        assert kept.deploy().code == 0
        assert upgrade_of(kept).new_serves
        assert "go on" in kept.target.asked
        [record] = DataRecords.of(kept.target.project, "here").all()
        assert record.reason
        assert record.reason.endswith(
            "PostgreSQL 18 serves now, which was not proved; the data of before is kept in volume board_postgres:"
            " `docker volume rm board_postgres` removes it"
        )

    def test_on_the_way_back_goes_on_with_that(self, kept: World) -> None:
        """It had failed."""
        kept.target.fails |= {"started": DeployFailed("it ended"), "switch back": Killed()}
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        assert kept.deploy().code == 0
        assert not upgrade_of(kept).new_serves

    def test_lets_nobody_go_on_where_it_cannot_be_undone(self, kept: World) -> None:
        """Half a copy looks like data; the next command tries again."""
        kept.target.fails["close"] = Killed()
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        kept.target.fails["abandon"] = SlipwayError("no engine answers")
        with pytest.raises(DeployFailed, match="what it left is still there: no engine answers"):
            kept.deploy()
        assert kept.deploy().code == 0
        assert old_serves(kept)

    def test_leaves_no_deploy_with_the_copy_for_its_data(self, kept: World) -> None:
        """The data is looked for once more when the copy is gone."""
        kept.target.fails["fill"] = Killed()
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        kept.target.meanwhile["abandon"] = lambda: setattr(kept.target.database, "gone", True)
        with pytest.raises(UsageError, match="the data is gone"):
            kept.deploy()

    def test_can_be_told_again(self, kept: World) -> None:
        """It heals what the killed one left first."""
        kept.target.fails["close"] = Killed()
        with pytest.raises(Killed):
            upgraded(kept, "--yes")
        code, document = upgraded(kept, "--yes")
        assert (code, document["verdict"]) == (0, "proved")
        assert asked(kept)[0] == GONE
