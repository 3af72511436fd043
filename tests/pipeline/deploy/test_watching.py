"""A watch: what it sends, what it leaves where it is killed, who is told of its end, and the verb."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.deploy.healing import JOURNAL, WATCH
from pipeline.errors import Interrupted, LockHeld, SlipwayError, UsageError
from pipeline.proof.report import Report
from pipeline.proof.traffic import GeneratorDied, TrafficPlan
from pipeline.releases.lock import hold_lock
from pipeline.releases.records import write_json
from pipeline.system.text import duration
from tests.pipeline.deploy.fake_prometheus import FAILING
from tests.pipeline.deploy.fake_target import FakeTarget
from tests.pipeline.deploy.fake_traffic import FakeTraffic
from tests.pipeline.deploy.hearing import deploy
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.test_removal import WRITE
from tests.pipeline.deploy.world import World, release


class TestTheTraffic:
    def test_goes_on_at_a_tenth_of_the_rate(self, heard: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a journal of its own."""
        plans: list[TrafficPlan] = []

        class Noted(FakeTraffic):
            def __init__(self, target: FakeTarget, plan: TrafficPlan) -> None:
                super().__init__(target, plan)
                plans.append(plan)

        monkeypatch.setattr("tests.pipeline.deploy.world.FakeTraffic", Noted)
        deploy(heard)
        plan = plans[-1]
        assert (plan.rate, plan.phase) == (heard.target.env.rate / 10, "watch")
        assert plan.journal == heard.records[-1].folder / JOURNAL.format(WATCH)
        assert plan.requests == release("b").requests

    def test_that_dies_ends_no_watch(self, heard: World) -> None:
        """Users' requests say something, too."""

        def die() -> None:
            heard.target.fails["snapshot"] = GeneratorDied("the generator died")

        heard.prometheus.meanwhile |= {30: die, 60: heard.prometheus.fire}
        code, report = deploy(heard)
        assert (code, report["verdict"]) == (1, "rolled_back")
        assert "! the generator died" in heard.said

    def test_leaves_no_journal(self, heard: World) -> None:
        """What it wrote is removed."""
        journal = JOURNAL.format(WATCH)
        heard.prometheus.meanwhile[60] = lambda: (heard.records[-1].folder / journal).write_text("")
        deploy(heard)
        assert not (heard.records[-1].folder / journal).exists()

    def test_is_no_other_deploys_to_clean_up(self, heard: World) -> None:
        """It would remove what the watch is about to ask for; what a killed watch left goes."""
        journal = heard.records[-1].folder / JOURNAL.format(WATCH)
        journal.write_text("")
        with hold_lock(journal.parent / WATCH):
            heard.deploy(release("c"))
            assert journal.exists()
        heard.deploy(release("d"))
        assert not journal.exists()

    def test_that_a_command_cleans_up_takes_its_own_rows_alone(self, heard: World) -> None:
        """Another proof may have written since."""
        heard.target.releases.tree = release("b", None, WRITE)
        heard.prometheus.meanwhile[60] = heard.target.asked.clear
        assert heard.run("deploy", "--json")[0] == 0
        [line] = [line for line in heard.target.asked if line.startswith("synthetic")]
        assert re.fullmatch(r"synthetic \w: remove [1-9]\d*", line)

    def test_that_did_not_tell_what_it_wrote_leaves_that_to_the_next_deploy(self, heard: World) -> None:
        """That has the lock."""
        heard.target.releases.tree = release("b", None, WRITE)

        def die() -> None:
            heard.target.asked.clear()
            heard.target.fails["snapshot"] = GeneratorDied("the generator died")

        heard.prometheus.meanwhile[60] = die
        heard.run("deploy", "--json")
        assert [line for line in heard.target.asked if line.startswith("synthetic")] == []
        left = heard.records[-1].folder.joinpath("report.json").read_text()
        assert '"unremoved": "the watch\'s traffic ended before it knew what it wrote"' in left


class TestAKilledWatch:
    @pytest.fixture(name="killed")
    def _killed(self, heard: World) -> World:
        def die() -> None:
            (heard.records[-1].folder / JOURNAL.format(WATCH)).write_text("")
            raise Killed

        heard.prometheus.meanwhile[60] = die
        with pytest.raises(Killed):
            deploy(heard)
        return heard

    def test_is_seen(self, killed: World) -> None:
        """Its report says that it is watched, and `doctor` that nobody does."""
        assert killed.file(2, "report.json")["watch"]["outcome"] == "watching"
        code, document = killed.run("doctor", "--json")
        assert code == 1
        assert any("the watch of deploy 2 was killed: `nox -s watch -- here" in one for one in document["findings"])

    def test_that_left_nothing_is_seen_once_its_time_is_over(self, killed: World) -> None:
        """What sent its traffic removed what it wrote. Until then it may go on elsewhere, or go back."""
        folder = killed.records[-1].folder
        folder.joinpath(JOURNAL.format(WATCH)).unlink()
        report = killed.file(2, "report.json")

        def findings(minutes: float) -> list[str]:
            """What `doctor` says when the watch should have ended so many minutes ago."""
            until = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
            write_json(folder / "report.json", {**report, "watch": {**report["watch"], "until": until}})
            _, document = killed.run("doctor", "--json")
            return [one for one in document["findings"] if "watch" in one]

        line = "the watch of deploy 2 never came to its end: `nox -s watch -- here --release 2` begins it anew"
        assert (findings(-1), findings(5), findings(11)) == ([], [], [line])
        with killed.target.lock():
            assert findings(11) == [], "it goes back"
        with hold_lock(folder / WATCH):
            assert findings(11) == [], "it goes on here"
        killed.run("watch", "--json")
        assert killed.file(2, "report.json")["watch"]["outcome"] == "quiet"
        killed.serve(release("c"))
        write_json(folder / "report.json", report)
        assert findings(11) == [], "another deploy serves"

    def test_can_be_begun_anew(self, killed: World) -> None:
        """In another process, by the report that is stored."""
        killed.prometheus.meanwhile[120] = killed.prometheus.fire
        code, report = killed.run("watch", "--json")
        assert (code, report["verdict"]) == (1, "rolled_back")
        assert killed.serving == ["a", "a"]
        assert killed.file(2, "report.json") == report
        assert not killed.records[1].folder.joinpath(JOURNAL.format(WATCH)).exists()


class TestTheProofForPromotion:
    def test_is_attached_after_the_watch(self, heard: World) -> None:
        """Nobody promotes what is still listened to."""
        attested = heard.target.releases.attested
        seen: list[int] = []
        heard.prometheus.meanwhile[120] = lambda: seen.append(len(attested))
        deploy(heard)
        assert seen == [0]
        assert [(one.release, one.verdict) for one in attested] == [("b", "proved")]

    def test_says_that_the_release_was_taken_back(self, heard: World) -> None:
        """So that the digest is not promoted."""
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        deploy(heard)
        attested = [(one.release, one.verdict) for one in heard.target.releases.attested]
        assert sorted(attested) == [("a", "proved"), ("b", "rolled_back")]

    @pytest.mark.parametrize("end", ["superseded", "left"])
    def test_is_not_attached_where_nobody_listened_to_the_end(self, heard: World, end: str) -> None:
        """`nox -s watch` does, for one that still serves."""

        def left() -> None:
            raise Interrupted("stopped by SIGINT")

        ends = {"left": left, "superseded": lambda: heard.serve(release("c"))}
        heard.prometheus.meanwhile[60] = ends[end]
        assert deploy(heard)[1]["watch"]["outcome"] == end
        assert heard.target.releases.attested == []

    def test_is_attached_at_once_where_nobody_listens(self, served: World) -> None:
        """As ever."""
        served.deploy(release("b"))
        assert [one.verdict for one in served.target.releases.attested] == ["proved"]


class TestTheVerb:
    def test_watches_what_deploy_left_to_it(self, heard: World, capsys: pytest.CaptureFixture[str]) -> None:
        """On GitHub that is a job of its own."""
        code, report = deploy(heard, "--no-watch")
        assert (code, report["verdict"], report["watch"]) == (0, "proved", None)
        assert "nobody watches it yet: `nox -s watch -- here`" in heard.said
        assert heard.target.releases.attested == []
        code, report = heard.run("watch", "--release", "2", "--json")
        assert (code, report["watch"]["outcome"]) == (0, "quiet")
        assert Report.load(report).document() == report
        assert [one.verdict for one in heard.target.releases.attested] == ["proved"]

    def test_leaves_another_deploy_alone(self, heard: World) -> None:
        """It was told which one."""
        deploy(heard, "--no-watch")
        heard.deploy(release("c"))
        heard.prometheus.fire(replace(FAILING, release="c"))
        code, report = heard.run("watch", "--release", "2", "--json")
        assert (code, report["watch"]["outcome"]) == (0, "superseded")
        assert heard.serving == ["c", "c"]

    def test_watches_a_deploy_once_at_a_time(self, heard: World) -> None:
        """Two would send twice as much, and both go back."""
        deploy(heard, "--no-watch")
        with hold_lock(heard.records[-1].folder / WATCH), pytest.raises(LockHeld, match="deploy 2 is watched already"):
            heard.run("watch")

    def test_needs_something_to_do(self, heard: World) -> None:
        """One line says what to set."""
        heard.target.project.environments["here"] = heard.target.env.model_copy(update={"watch_minutes": 0})
        with pytest.raises(UsageError, match=r"environments.here\]: `watch_minutes` is not set"):
            heard.run("watch")

    def test_does_not_understand_a_report_of_another_version(self, heard: World) -> None:
        """It says so."""
        with pytest.raises(SlipwayError, match="deploy 1 has no report that this version can read"):
            heard.run("watch")


@pytest.mark.parametrize("how", ["a dry run", "nothing to do", "off", "a rollback"])
def test_is_not_for(how: str, heard: World) -> None:
    """What was proved before, or did not ship, is not listened to."""
    heard.prometheus.fire()
    if how == "off":
        off = heard.target.env.model_copy(update={"watch_minutes": 0})
        heard.target.project.environments["here"] = heard.target.env = off
    if how == "nothing to do":
        heard.target.releases.tree = release("a", "0001")
    if how == "a rollback":
        assert deploy(heard, "--no-watch")[0] == 0
        code, report = heard.run("rollback", "--json")
    else:
        code, report = deploy(heard, *(["--dry-run"] if how == "a dry run" else []))
    assert (code, report["watch"], heard.prometheus.asked) == (0, None, [])
    assert duration(heard.prometheus.clock()) == "0 s"
