"""The trial of a new release before anybody is sent to it: when there is one, and what it refuses."""

from __future__ import annotations

import os
from dataclasses import replace

from pipeline.config.requests import COMMAND
from pipeline.errors import SlipwayError
from pipeline.proof.smoke import Smoked
from tests.pipeline.deploy.fake_target import IDENT
from tests.pipeline.deploy.world import FIRST, SECOND, World, outcomes, release

TRIED = "answered its 2 requests before anybody is sent to it"
ORDER = ("upgrade", "prepare", "trial", "roll out", "traffic")


def order(world: World) -> list[str]:
    """Return what was done to the target, as far as the order matters."""
    return [line for line in world.target.asked if line.startswith(ORDER)]


def notes(told: object) -> dict[str, str]:
    """Return what each stage said."""
    return {one.name: one.note for one in told.report.stages}  # type: ignore[attr-defined]


class TestWhenThereIsOne:
    def test_in_check_where_nothing_has_to_be_brought_up(self, served: World) -> None:
        """Before anything is touched, and once."""
        told = served.deploy(release("b", "0001"), FIRST)
        assert order(served) == ["trial b", "prepare b", "traffic baseline", "roll out b"]
        assert (told.verdict, notes(told)["check"], notes(told)["migrate"]) == ("proved", TRIED, "")

    def test_after_the_migrations(self, served: World) -> None:
        """Its code needs their schema."""
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert order(served) == ["prepare b", "traffic baseline", "upgrade b", "trial b", "roll out b"]
        assert (notes(told)["check"], notes(told)["migrate"]) == ("", TRIED)

    def test_after_what_prepare_brings_up(self, served: World) -> None:
        """Replicas with the secrets of yesterday say that something of that changed."""
        fleet = served.target.fleet
        fleet.replicas = [replace(each, current=False) for each in fleet.replicas]
        assert notes(served.deploy(release("b", "0001"), FIRST))["migrate"] == TRIED
        assert order(served)[:2] == ["prepare b", "traffic baseline"]

    def test_none_of_a_first_release(self, world: World) -> None:
        """Nobody is answered yet, whom it could be kept from."""
        world.deploy(release("a", "0001"), FIRST)
        assert "trial a" not in world.target.asked

    def test_none_of_what_was_proved_here(self, served: World) -> None:
        """The way back in the night must not hang on what fails for each release; what is built is tried each time."""
        served.deploy(release("b", "0001"), FIRST)
        assert served.deploy(reference="1").verdict == "proved"
        assert "trial a" not in served.target.asked
        served.deploy(release("b", "0001"), FIRST)
        assert "trial b" in served.target.asked

    def test_none_in_a_dry_run_or_where_nothing_is_to_do(self, served: World) -> None:
        """It would write to the real database."""
        served.deploy(release("b"), dry_run=True)
        assert "trial b" not in served.target.asked
        served.deploy(release("a", "0001"), FIRST)
        assert "trial a" not in served.target.asked


class TestARefusedRelease:
    def test_touches_nothing(self, served: World) -> None:
        """The line has the request, and that no replica was exchanged; there is nothing to roll back."""
        served.target.fleet.breaks_alone["b"] = ["/list", "/one"]
        told = served.deploy(release("b", "0001"), FIRST)
        assert (told.code, told.verdict, told.report.rollback) == (1, "failed", None)
        assert told.reason == (
            "release b fails with the settings and secrets of here, before anybody is sent to it"
            f" (no replica was exchanged): GET /list: 500 (request {IDENT})"
        )
        assert "it fails GET /one: 500" in served.said
        assert told.report.log == f"grep -F REQUEST_ID {os.path.relpath(served.records[-1].folder / 'service.log')}"
        assert told.stages() == outcomes(until="check", last="failed")
        assert served.serving == ["a", "a"]

    def test_leaves_its_migrations(self, served: World) -> None:
        """They alone are applied, which the line says; what serves is proved on them."""
        served.target.fleet.breaks_alone["b"] = ["/one"]
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert (told.verdict, told.rollback.verdict) == ("rolled_back", "proved")
        assert "(its migrations are applied, and no replica was exchanged): GET /one: 500" in told.reason
        assert told.stages() == outcomes(until="migrate", last="failed")
        assert (served.target.database.revision, served.serving) == ("0002", ["a", "a"])
        assert "roll out b" not in served.target.asked

    def test_may_not_even_get_ready(self, served: World) -> None:
        """The target says why."""
        served.target.fleet.unready_alone.add("b")
        told = served.deploy(release("b", "0001"), FIRST)
        assert told.reason == "release b ended before it was ready: no such secret (no replica was exchanged)"
        assert "synthetic" not in " ".join(served.target.asked), "it was sent nothing"
        assert (told.verdict, told.report.rollback, served.serving) == ("failed", None, ["a", "a"])

    def test_leaves_no_row_that_a_command_removes(self, served: World) -> None:
        """With the ids that it said; where it did not get so far, by their age."""
        by_command = release("b", "0001")
        by_command = replace(
            by_command, requests=tuple(one.model_copy(update={"remove": COMMAND}) for one in by_command.requests)
        )
        fleet = served.target.fleet
        fleet.wrote = Smoked(ids=("7", "8"))
        fleet.breaks_alone["b"] = ["/one"]
        served.deploy(by_command, FIRST)
        assert [line for line in served.target.asked if line.startswith("synthetic")] == ["synthetic b: remove 2"]
        served.target.fails["trial"] = SlipwayError("the node is gone")
        served.deploy(by_command, FIRST)
        [line] = [line for line in served.target.asked if line.startswith("synthetic")]
        assert line == "synthetic b: remove --before 0"


class TestMeanwhile:
    def test_what_breaks_for_the_release_that_serves_is_a_failure(self, served: World) -> None:
        """The migrations were applied by then: that is no failure of before."""
        breaks = served.target.fleet.breaks
        served.target.meanwhile["trial"] = lambda: breaks.update(a=["/list"])
        told = served.deploy(release("b", "0002"), FIRST, SECOND)
        assert told.code == 1
        assert "all answered by release a" in told.reason
        assert "roll out b" not in served.target.asked

    def test_what_it_wrote_goes_however_it_ends(self, served: World) -> None:
        """The journal is the proof's, so that whoever has the record cleans up."""
        fleet = served.target.fleet
        fleet.written, fleet.breaks_alone["b"] = "not a journal\n", ["/one"]
        served.deploy(release("b", "0001"), FIRST)
        assert not (served.records[-1].folder / "trial-writes.jsonl").exists(), "cleaned up by what serves"


class TestTries:
    def test_are_two_where_some_requests_may_fail(self, served: World) -> None:
        """One that fails once may be one of those."""
        served.deploy(release("b", "0001"), FIRST)
        assert served.target.fleet.tries == [1]
        served.target.env = served.target.env.model_copy(update={"max_failures": 3})
        served.deploy(release("c", "0001"), FIRST)
        assert served.target.fleet.tries == [1, 2]
