"""A deploy that fails or is interrupted: what is brought back, and what is reported."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest

from pipeline.config.requests import RequestSpec
from pipeline.deploy.evidence import summary_line
from pipeline.errors import DeployFailed, Interrupted, SlipwayError
from pipeline.proof.traffic import GeneratorDied
from tests.pipeline.deploy.world import FIRST, FULL, SECOND, World, outcomes, release


class TestAReleaseThatFails:
    def test_in_the_rollout_is_undone(self, served: World) -> None:
        """What served before serves again, and is proved."""
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

    def test_is_counted_once_and_for_all(self, served: World) -> None:
        """How many requests failed until it was undone is one number: in the headline, the reason and the report."""
        served.target.fleet.breaks["b"] = ["/list"]
        told = served.deploy(release("b"))
        toll, back = told.rollback.until_undone, told.rollback.traffic
        assert toll
        assert back
        assert toll.failed == told.traffic.failed + back.failed > 0
        assert told.traffic.sent < toll.sent < told.traffic.sent + back.sent  # the rest is the proof of release a
        number = f"{toll.failed} of {toll.sent} requests failed until it was undone"
        assert told.reason.startswith(f"{number}: {toll.failed} × 5xx, all answered by release b (first: GET /list")
        assert summary_line(told.report).count(number) == 1
        text = (served.records[-1].folder / "report.md").read_text()
        assert text.count(number) == 3  # the headline, the traffic, the rollback's
        assert f"{number}, and none of {told.traffic.sent + back.sent - toll.sent} afterwards; " in text
        assert served.file(2, "report.json")["rollback"]["until_undone"] == {"sent": toll.sent, "failed": toll.failed}

    def test_without_a_failed_request_says_so(self, served: World) -> None:
        """A release that never gets ready costs nobody an answer, and the headline has the number all the same."""
        served.target.fleet.unready.add("b")
        told = served.deploy(release("b"))
        toll = told.rollback.until_undone
        assert toll
        assert toll.failed == 0
        line = f"never got ready; none of {toll.sent} requests failed until it was undone; release a serves again"
        assert summary_line(told.report).endswith(line)

    def test_takes_its_stores_back_first(self, served: World) -> None:
        """The release that comes back finds what it was proved with."""
        served.target.fleet.defined = "other stores"
        served.target.fleet.breaks["b"] = ["/list"]
        told = served.deploy(release("b"))
        assert (told.verdict, told.rollback.verdict) == ("rolled_back", "proved")
        assert served.target.fleet.around == "stores"
        asked = served.target.asked
        assert asked.index("put back stores") < asked.index("roll back a")

    def test_whose_stores_cannot_be_put_back_says_so_and_sends_nothing(self, served: World) -> None:
        """Requests to what is known to be down would only take time."""
        served.target.fleet.defined = "other stores"
        served.target.fails = {"prepare": DeployFailed("postgres ends"), "put back": DeployFailed("postgres ends, too")}
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "failed")
        assert (told.reason, told.rollback.reason) == ("postgres ends", "postgres ends, too")
        assert told.rollback.traffic is None

    def test_for_its_stores_is_refused_untouched(self, served: World) -> None:
        """What would not run of them is found in `check`."""
        served.target.fleet.objected = ["postgres would not run: bananas"]
        told = served.deploy(release("b"))
        assert (told.code, told.verdict, told.reason) == (1, "failed", "postgres would not run: bananas")
        assert told.stages() == outcomes(until="check", last="failed")
        assert "prepare b" not in served.target.asked

    def test_in_the_proof_is_undone(self, served: World) -> None:
        """A request that the old release does not know is sent once the new one serves alone."""
        served.target.fleet.breaks["b"] = ["/new"]
        told = served.deploy(release("b", None, RequestSpec(name="new", method="GET", path="/new")))
        assert (told.code, told.verdict) == (1, "rolled_back")
        assert "until it was undone: 160 × 5xx, all answered by release b (first: GET /new → 500)" in told.reason
        assert told.stages() == outcomes(until="prove", last="failed")
        assert told.traffic.by_release["b"].failed == 160
        assert served.serving == ["a", "a"]

    def test_by_the_word_of_the_engine_is_undone(self, served: World) -> None:
        """All answers were right, but a replica ended."""
        served.target.meanwhile["dismiss"] = lambda: setattr(served.target.watch, "ended", "replica 2 ended by itself")
        served.target.meanwhile["roll back"] = lambda: setattr(served.target.watch, "ended", None)  # that one is gone
        told = served.deploy(release("b"))
        assert (told.verdict, told.report.reason) == ("rolled_back", "replica 2 ended by itself")

    def test_by_being_slow_is_measured_twice(self, served: World) -> None:
        """The figures show the second measurement."""
        served.target.fleet.slow.add("b")
        told = served.deploy(release("b"))
        assert told.verdict == "rolled_back"
        assert "release b is slow: `list` 900 ms against 5 ms (180 ×" in told.reason
        assert [one.name for one in told.traffic.phases][-3:] == ["rollout", "bake", "confirm"]
        assert told.traffic.comparison
        assert [one.slow for one in told.traffic.comparison.requests] == [True, True]

    def test_by_being_later_than_is_allowed_shows_who_was(self, served: World) -> None:
        """With `max_latency_ms`, the report has examples."""
        served.target.fleet.slow.add("b")
        served.target.env = served.target.env.model_copy(update={"max_latency_ms": 500})
        told = served.deploy(release("b"))
        assert "p95 900 ms (limit 500 ms), confirmed twice" in told.reason
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
        """Exit code 1, and both reasons, because somebody has to look."""
        served.target.fleet.unready |= {"a", "b"}
        served.target.fails["roll out"] = DeployFailed("b does not start")
        del served.target.fleet.replicas[0]
        told = served.deploy(release("b"))
        assert (told.code, told.verdict, told.report.reason) == (1, "failed", "b does not start")
        rollback = told.rollback
        assert (rollback.release, rollback.verdict) == ("a", "failed")
        assert "never got ready" in str(rollback.reason)
        assert told.stages(back=True) == [("roll back", "failed")]
        assert rollback.until_undone is None
        assert "the rollback failed, too" in served.said
        assert served.records[-1].verdict == "failed"

    def test_and_comes_back_broken_says_so(self, served: World) -> None:
        """The release that serves again is proved, too."""
        served.target.fleet.breaks["b"] = ["/list"]
        served.target.meanwhile["roll back"] = lambda: served.target.fleet.breaks.update(a=["/list"])
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "failed")
        assert told.stages(back=True) == [("roll back", "ok"), ("prove", "failed")]
        assert "answered by release a" in str(told.rollback.reason)
        assert served.serving == ["a", "a"]

    def test_and_comes_back_as_broken_as_it_was_is_undone(self, served: World) -> None:
        """A rollback is not judged harder than what it brings back."""
        served.target.fleet.breaks |= {"a": ["/list"], "b": ["/list"]}
        told = served.deploy(release("b"))
        assert (told.code, told.verdict, told.rollback.verdict) == (1, "rolled_back", "proved")


class TestTheWayBack:
    """What only watches a rollback, or notes where it stands, does not stop it."""

    @pytest.fixture(name="broken")
    def _broken(self, served: World) -> World:
        """Release b never gets ready."""
        served.target.fleet.unready.add("b")
        served.target.releases.tree = release("b")
        return served

    def test_begins_before_the_traffic_has_ended(self, broken: World) -> None:
        """Each second in which the broken release serves counts, and removing what it kept takes some."""
        begun, waited = threading.Event(), list[bool]()
        broken.target.meanwhile["roll back"] = begun.set
        broken.target.ending = lambda: waited.append(begun.wait(5))
        assert broken.deploy().verdict == "rolled_back"
        assert waited == [True]

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
        """The traffic then starts with the proof."""
        broken.target.meanwhile["roll out"] = lambda: broken.target.fails.update({"traffic": error})
        told = broken.deploy()
        assert (told.verdict, told.rollback.verdict, broken.serving) == ("rolled_back", "proved", ["a", "a"])
        assert "goes unwatched" in broken.said

    def test_is_gone_while_the_traffic_dies(self, broken: World) -> None:
        """The old release serves, and the report says why it is not proved."""
        broken.target.meanwhile["roll back"] = lambda: broken.target.fails.update(
            {"snapshot": GeneratorDied("it died")}
        )
        del broken.target.fleet.replicas[0]
        told = broken.deploy()
        assert (told.verdict, told.rollback.reason) == ("failed", "it died")
        assert broken.serving == ["a", "a"]

    def test_ends_in_a_record_whatever_it_meets(self, broken: World) -> None:
        """Even a fault of our own."""
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
    ("migrate", "trial", True),
    ("migrate", "snapshot", True),
    ("migrate", "trouble", True),
    ("roll out", "roll out", True),
    ("prove", "dismiss", True),
]


class TestWhateverComesBetween:
    """In each stage: what was touched is undone, what was not is left alone, and the record says so."""

    def stopped(self, world: World, where: str, error: BaseException, *, touched: bool) -> tuple[int, str, str, str]:
        """Deploy while `error` is raised; return exit code, verdict, reason, and how the last stage ended."""
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
        """The exit code is 130, even if the deploy was undone."""
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
        """The traceback is there, for whoever fixes it."""
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
        """A connection has no name, and some errors have no number."""
        assert self.stopped(served, "objections", error, touched=False)[2] == reason

    def test_an_interrupt_of_a_first_deploy(self, world: World) -> None:
        """What was shipped is withdrawn."""
        world.target.fails["dismiss"] = Interrupted("stopped by SIGTERM")
        told = world.deploy()
        assert (told.code, told.verdict, world.serving) == (130, "interrupted", [])
        assert told.rollback.reason == "there is no earlier release: nothing is serving"

    def test_an_interrupt_that_cannot_be_undone(self, served: World) -> None:
        """The verdict is then `failed`, whatever began it."""
        served.target.fails |= {"snapshot": Interrupted("stopped by SIGINT"), "roll back": FULL}
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "failed")
        assert told.report.reason == "stopped by SIGINT"
        assert "No space left" in str(told.rollback.reason)

    def test_an_interrupt_before_the_release_is_there(self, served: World) -> None:
        """The report names the release that was asked for, as the record does."""
        served.target.fails["note build"] = Interrupted("stopped by SIGINT")
        told = served.deploy(reference="1")
        assert (told.verdict, told.report.release, served.records[-1].release) == ("interrupted", "a", "a")

    @pytest.mark.parametrize("where", ["roll back", "publish"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_while_it_is_undone_and_recorded(self, served: World, where: str, number: signal.Signals) -> None:
        """The signal is answered, but has no effect."""
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
