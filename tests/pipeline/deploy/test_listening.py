"""A deploy that listens: what it hears afterwards, and what it does about it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.requests import RequestSpec
from pipeline.deploy import listening
from pipeline.deploy.listening import LEAST_REQUESTS
from pipeline.errors import DeployFailed, Interrupted, LockHeld, SlipwayError
from pipeline.metrics.prometheus import WINDOW_SECONDS, Alert
from pipeline.system.protection import problems_of
from tests.pipeline.deploy.fake_prometheus import FAILING
from tests.pipeline.deploy.fake_traffic import FakeTraffic
from tests.pipeline.deploy.hearing import MINUTES, deploy, listens
from tests.pipeline.deploy.world import FULL, World, release

LONG = timedelta(seconds=60)
RULES = Path(__file__).parents[3] / "monitoring/rules/service.yaml"


class TestAnAlert:
    def test_brings_the_release_before_back(self, heard: World) -> None:
        """By the rollback that a person would run, with the alert as its reason."""
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        code, report = deploy(heard)
        reason = (
            "ReleaseFailing fired 60 s after the release was proved: Release b fails more requests than the one before."
        )
        assert (code, report["verdict"], report["reason"]) == (1, "rolled_back", reason)
        assert heard.serving == ["a", "a"]
        assert [(one.release, one.verdict) for one in heard.records] == [
            *(("a", "proved"), ("b", "rolled_back"), ("a", "proved"))
        ]
        assert heard.records[-1].reason == f"back from deploy 2, as {reason}"
        assert heard.file(2, "report.json") == report
        back = report["rollback"]
        assert (back["release"], back["verdict"], back["reason"]) == ("a", "proved", None)
        assert [stage["name"] for stage in back["stages"]] == ["plan", "build", "check", "migrate", "roll out", "prove"]
        assert back["traffic"]["by_release"]["a"]["failed"] == 0
        watch = report["watch"]
        assert (watch["outcome"], watch["alert"], watch["seconds"]) == ("fired", "ReleaseFailing", 60.0)
        assert heard.target.records().serving() == heard.records[-1]

    def test_is_what_people_are_told(self, heard: World, capsys: pytest.CaptureFixture[str]) -> None:
        """In the last line, in the report, and in the list of releases."""
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        assert heard.run("deploy")[0] == 1
        line = "Release b was undone on here: ReleaseFailing fired 60 s after the release was proved: "
        out = capsys.readouterr().out
        assert out.splitlines()[-1].startswith(line)
        assert out.endswith("release a serves again\n")
        assert (heard.records[1].folder / "report.md").read_text().startswith(f"# {line}")
        heard.run("releases")
        assert "ReleaseFailing fired 60 s" in capsys.readouterr().out

    def test_keeps_what_the_release_logged(self, heard: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The way back removes its replicas."""
        monkeypatch.setattr(heard.target.fleet, "log", lambda release: f"{release} said no\n", raising=False)
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        deploy(heard)
        assert (heard.records[1].folder / "service.log").read_text() == "b said no\n"

    @pytest.mark.parametrize(
        ("alert", "ago"),
        [
            (replace(FAILING, release="c"), 0.0),
            (replace(FAILING, state="pending"), 0.0),
            (replace(FAILING, rollback=False), 0.0),
            (FAILING, 3600.0),
            (replace(FAILING, name="ErrorBudgetBurning", release=None), 3600.0),
        ],
        ids=["of another release", "pending", "that is no reason", "of before", "of a budget that burned before"],
    )
    def test_that_is_not_about_the_release_changes_nothing(self, heard: World, alert: Any, ago: float) -> None:
        """A fix that ships while the budget burns is not taken back."""
        heard.prometheus.fire(alert, ago=ago)
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "quiet")
        assert heard.serving == ["b", "b"]

    def test_of_the_budget_is_a_reason_where_it_began_afterwards(self, heard: World) -> None:
        """It is about no release, and this one serves."""
        burning = replace(FAILING, name="ErrorBudgetBurning", release=None)
        heard.prometheus.meanwhile[120] = lambda: heard.prometheus.fire(burning)
        code, report = deploy(heard)
        assert (code, report["watch"]["alert"]) == (1, "ErrorBudgetBurning")

    @pytest.mark.parametrize(
        ("alert", "code"), [(FAILING, 1), (replace(FAILING, name="ErrorBudgetBurning", release=None), 0)],
        ids=["of the release", "of no release"],
    )  # fmt: skip
    def test_that_began_in_the_rollout_is_a_reason_where_it_names_the_release(
        self, heard: World, monkeypatch: pytest.MonkeyPatch, alert: Alert, code: int
    ) -> None:
        """People use what the proof does not ask for, and that fails from the first replica on."""
        proved = (datetime.now(UTC) + timedelta(minutes=1)).isoformat(timespec="seconds")
        monkeypatch.setattr("pipeline.deploy.whole_report.now", lambda: proved)
        heard.target.meanwhile["roll out"] = lambda: heard.prometheus.fire(alert)
        assert deploy(heard)[0] == code
        assert heard.serving == [["b", "b"], ["a", "a"]][code]

    def test_goes_back_to_what_served_before_and_not_to_what_was_first(self, heard: World) -> None:
        """The records know a, then c: c comes back."""
        heard.serve(release("c"))
        heard.target.fleet.replicas = heard.target.fleet.replicas[-2:]
        heard.target.releases.tree = release("b")
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        deploy(heard)
        assert heard.serving == ["c", "c"]

    def test_whose_rollback_fails_says_so(self, heard: World) -> None:
        """Somebody has to look, now."""

        def fire() -> None:
            heard.prometheus.fire()
            heard.target.fails["prepare"] = DeployFailed("postgres ends")

        heard.prometheus.meanwhile[60] = fire
        code, report = deploy(heard)
        assert (code, report["verdict"]) == (1, "failed")
        assert (report["rollback"]["verdict"], report["rollback"]["reason"]) == ("failed", "postgres ends")
        attested = [(one.release, one.verdict) for one in heard.target.releases.attested]
        assert attested == [("a", "rolled_back"), ("b", "failed")]
        assert heard.target.records().serving() == heard.records[1]
        assert heard.target.records().previous() == heard.records[0], "a rollback by hand goes where this one wanted to"

    def test_whose_rollback_is_refused_says_so(self, heard: World) -> None:
        """Nothing was touched."""

        def fire() -> None:
            heard.prometheus.fire()
            heard.target.wrong = ["the disk is full"]

        heard.prometheus.meanwhile[60] = fire
        code, report = deploy(heard)
        assert (code, report["rollback"]["reason"]) == (1, "the disk is full")
        assert heard.serving == ["b", "b"]

    @pytest.mark.parametrize("error", [SlipwayError("the cluster is away"), FULL, RuntimeError("x")], ids=type)
    def test_whose_rollback_cannot_begin_says_so(self, heard: World, error: Exception) -> None:
        """That is no watch that heard nothing."""

        def fire() -> None:
            heard.prometheus.fire()
            heard.target.fails["problems"] = error

        heard.prometheus.meanwhile[60] = fire
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (1, "failed", "fired")
        assert report["rollback"]["reason"] == problems_of(error)[0]
        assert heard.serving == ["b", "b"]

    def test_leaves_the_metrics_of_what_became_of_the_deploy(
        self, heard: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A rollback that is refused has no record, and DeployNotProved tells of it all the same."""
        seen: list[Any] = []
        monkeypatch.setattr(listening, "leave_metrics", lambda *_: seen.append(heard.records[1].verdict))
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        heard.prometheus.meanwhile[55] = lambda: setattr(heard.target, "wrong", ["the disk is full"])
        deploy(heard)
        assert seen[-1] == "failed"


class TestTheLock:
    def test_is_free_while_it_watches(self, heard: World) -> None:
        """Whoever wants to deploy may."""
        held: list[Any] = []
        heard.prometheus.meanwhile |= {at: lambda: held.append(heard.target.holder()) for at in (5, 120)}
        deploy(heard)
        assert held == [None, None]

    def test_is_waited_for_where_an_alert_fires(self, heard: World) -> None:
        """Another deploy may be the fix; as it ends without one, this release goes."""
        with ExitStack() as stack:
            heard.prometheus.meanwhile[60] = heard.prometheus.fire
            heard.prometheus.meanwhile[55] = lambda: stack.enter_context(heard.target.lock())
            heard.prometheus.meanwhile[300] = stack.close  # the time of the watch is over by then
            code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["seconds"]) == (1, "rolled_back", 300.0)
        assert heard.said.count("ReleaseFailing fires, and another deploy holds the lock: waiting for it") == 1

    def test_that_is_taken_in_the_last_moment_is_waited_for(
        self, heard: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The traffic goes on meanwhile."""
        told: list[str] = []

        class Noted(FakeTraffic):
            def hold(self) -> None:
                told.append("hold")

            def phase(self, name: str, requests: Sequence[RequestSpec] | None = None) -> None:
                super().phase(name, requests)
                told.append(name)

        monkeypatch.setattr("tests.pipeline.deploy.world.FakeTraffic", Noted)
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        heard.prometheus.meanwhile[55] = lambda: heard.target.fails.update(problems=LockHeld("somebody has it"))
        code, report = deploy(heard)
        assert (code, report["verdict"]) == (1, "rolled_back")
        assert "! somebody has it" in heard.said
        assert told[told.index("watch") - 1] == "hold"

    def test_is_lost_to_a_deploy_that_serves_by_then(self, heard: World) -> None:
        """It looks again when it has the lock."""
        heard.prometheus.meanwhile[60] = heard.prometheus.fire
        heard.target.meanwhile["refresh"] = bool  # of the deploy itself

        def shipped() -> None:
            record = heard.target.records().begin({"release": "c", "stage": "prove"})
            (record.folder / "report.json").write_text('{"verdict": "proved", "release": "c"}')

        heard.prometheus.meanwhile[55] = lambda: heard.target.meanwhile.update(refresh=shipped)
        code, report = deploy(heard)
        assert (code, report["verdict"]) == (0, "proved")
        assert report["watch"]["said"] == "deploy 3 serves by now: the watch ends"
        assert heard.serving == ["b", "b"]


class TestTheEnd:
    def test_without_an_alert_is_said(self, heard: World, capsys: pytest.CaptureFixture[str]) -> None:
        """With how many requests that stands on."""
        assert heard.run("deploy")[0] == 0
        said = "watched for 3 min: no alert, at most 600 requests in 2 min"
        assert capsys.readouterr().out.splitlines()[-1] == f"Release b: {said}"
        watch = heard.file(2, "report.json")["watch"]
        assert watch == {
            "minutes": MINUTES,
            "outcome": "quiet",
            "said": said,
            "seconds": 180.0,
            "requests": 600,
            "alert": None,
            "sent": watch["sent"],
            "failed": 0,
            "until": watch["until"],
        }
        assert watch["sent"] > 0
        assert abs(datetime.fromisoformat(watch["until"]) - datetime.now(UTC) - timedelta(minutes=MINUTES)) < LONG
        assert f"Afterwards: {said}." in (heard.records[-1].folder / "report.md").read_text()
        heard.run("releases")
        assert said in capsys.readouterr().out
        assert set(heard.prometheus.asked) == {"b"}

    def test_with_too_few_requests_is_no_verdict(self, heard: World) -> None:
        """Silence of an alert that cannot fire says nothing."""
        heard.prometheus.counted = LEAST_REQUESTS - 1
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "nothing")
        said = "nothing was watched: at most 199 requests in 2 min, and a verdict needs 200"
        assert report["watch"]["said"] == said

    def test_has_a_verdict_from_as_many_requests_on_as_the_alert_has(self, heard: World) -> None:
        """The rule and the watch have the same number."""
        groups = yaml.safe_load(RULES.read_text())["groups"]
        [rule] = [one for group in groups for one in group["rules"] if one.get("alert") == "ReleaseFailing"]
        assert f"release:requests:increase2m >= {LEAST_REQUESTS}" in rule["expr"]
        assert rule["labels"]["rollback"] == "true"
        heard.prometheus.counted = LEAST_REQUESTS
        assert deploy(heard)[1]["watch"]["outcome"] == "quiet"

    def test_does_not_count_what_the_proof_has_sent(self, heard: World) -> None:
        """A window of two minutes has its requests until the watch is two minutes old."""
        heard.prometheus.meanwhile[WINDOW_SECONDS - 1] = lambda: setattr(heard.prometheus, "counted", 120.0)
        report = deploy(heard)[1]
        assert report["watch"]["outcome"] == "nothing"
        assert report["watch"]["said"].startswith("nothing was watched: at most 120 requests in 2 min")

    @pytest.mark.parametrize("back", [None, 180.0], ids=["to the end", "and comes back"])
    def test_is_no_verdict_where_prometheus_was_away_for_long(self, heard: World, back: float | None) -> None:
        """An alert may have fired unheard meanwhile."""
        heard.prometheus.meanwhile[20] = lambda: setattr(heard.prometheus, "away", "prometheus: it is gone")
        if back:
            heard.prometheus.meanwhile[back] = lambda: setattr(heard.prometheus, "away", None)
        code, report = deploy(heard)
        assert (code, report["watch"]["outcome"]) == (0, "nothing")
        assert report["watch"]["said"].startswith("nothing was watched: prometheus: it is gone")

    def test_comes_in_order_where_the_watch_itself_is_wrong(self, heard: World) -> None:
        """Its traffic ends, and its report is no longer that of a watch that goes on."""

        def break_down() -> None:
            raise RuntimeError("x")

        heard.prometheus.meanwhile[60] = break_down
        code, report = deploy(heard)
        assert (code, report["watch"]["outcome"]) == (0, "nothing")
        assert "a fault in the pipeline itself: RuntimeError: x" in report["watch"]["said"]
        assert report["watch"]["sent"] > 0

    def test_without_a_prometheus_is_said(self, heard: World) -> None:
        """Nothing is rolled back by who knows nothing."""
        heard.prometheus.away = "prometheus: http://127.0.0.1:9 did not answer in time"
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "nothing")
        assert report["watch"]["said"] == f"nothing was watched: {heard.prometheus.away}"
        assert heard.said.count(f"! {heard.prometheus.away}") == 1

    def test_comes_where_the_release_is_lost(self, heard: World) -> None:
        """What it sends is not known any more; nothing is rolled back."""
        deploy(heard, "--no-watch")
        del heard.target.releases.kept["b"]
        code, report = heard.run("watch", "--json")
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "nothing")
        assert report["watch"]["said"].startswith("nothing was watched: ")

    def test_is_not_where_prometheus_is_away_for_a_while(self, heard: World) -> None:
        """It is asked again."""
        heard.prometheus.away = "prometheus: it starts"
        heard.prometheus.meanwhile[60] = lambda: setattr(heard.prometheus, "away", None)
        heard.prometheus.meanwhile[120] = heard.prometheus.fire
        assert deploy(heard)[0] == 1

    def test_comes_with_another_release(self, heard: World) -> None:
        """Whoever deployed it watches that one."""
        heard.prometheus.meanwhile[60] = lambda: heard.deploy(release("c"))
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "superseded")
        assert report["watch"]["said"] == "deploy 3 serves by now: the watch ends"
        assert heard.serving == ["c", "c"]

    def test_comes_with_ctrl_c_and_leaves_the_release(self, heard: World) -> None:
        """The exit code is that of the deploy."""

        def interrupt() -> None:
            raise Interrupted("stopped by SIGINT")

        heard.prometheus.meanwhile[60] = interrupt
        code, report = deploy(heard)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "left")
        assert report["watch"]["said"] == "the watch was ended after 60 s, and the release stays"
        assert heard.serving == ["b", "b"]

    def test_is_at_once_for_a_first_release(self, world: World) -> None:
        """There is nothing to go back to."""
        listens(world)
        world.prometheus.fire()
        code, report = deploy(world)
        assert (code, report["verdict"], report["watch"]["outcome"]) == (0, "proved", "nothing")
        assert report["watch"]["said"] == "not watched: there is no release before it to go back to"
        assert world.prometheus.clock() == 0.0
