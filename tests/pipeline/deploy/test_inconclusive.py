"""A deploy of which too little is known: exit code 3, and what is left is as the environment says."""

from __future__ import annotations

import pytest

from pipeline.deploy.evidence import summary_line
from tests.pipeline.deploy.world import World, release


class TestTooLittleEvidence:
    """Exit code 3: nothing is known against the release, and too little for it."""

    @pytest.fixture(name="few")
    def _few(self, served: World) -> World:
        """Ten answers in a bake that may not go on."""
        served.target.answers_in_a_bake = 10
        served.target.env = served.target.env.model_copy(update={"bake_limit_seconds": 0.01})
        return served

    def test_takes_the_release_back(self, few: World) -> None:
        """Unless the environment says otherwise."""
        told = few.deploy(release("b"))
        assert (told.code, told.verdict, told.rollback.verdict) == (3, "inconclusive", "proved")
        assert "answers, and 300 are needed for a verdict" in told.reason
        line = "Release b was undone on here, neither proved nor refused: release b gave "
        assert summary_line(told.report).startswith(line)
        assert summary_line(told.report).endswith("failed until it was undone; release a serves again")
        assert few.serving == ["a", "a"]
        assert few.target.records().serving() == few.records[0]
        assert "`bake_limit_seconds`" in (few.records[-1].folder / "report.md").read_text()

    def test_keeps_it_where_the_environment_says_so(self, few: World) -> None:
        """Then it is what serves, what the next one is compared with, and what is proved again."""
        few.target.env = few.target.env.model_copy(update={"inconclusive": "keep"})
        told = few.deploy(release("b"))
        assert (told.code, told.verdict, told.report.rollback) == (3, "inconclusive", None)
        assert summary_line(told.report).startswith(
            "Release b serves here, neither proved nor refused: release b gave "
        )
        assert few.serving == ["b", "b"]
        assert few.target.records().serving() == few.records[-1]
        assert few.target.records().retained(3) == ["b", "a"]
        few.target.answers_in_a_bake = 320
        again = few.deploy()
        assert (again.code, again.verdict, again.report.previous) == (0, "proved", "b")

    def test_keeps_the_first_one(self, world: World) -> None:
        """There is nothing to go back to, and nothing is known against it."""
        world.target.answers_in_a_bake = 10
        world.target.env = world.target.env.model_copy(update={"bake_limit_seconds": 0.01})
        told = world.deploy(release("a"))
        assert (told.code, told.verdict, world.serving) == (3, "inconclusive", ["a", "a"])

    def test_lets_the_bake_go_on(self, served: World) -> None:
        """As long as it may, and no longer than it has to."""
        served.target.answers_in_a_bake = 200
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (0, "proved")
        assert "the bake goes on" in served.said

    def test_asks_a_release_that_was_proved_for_none(self, few: World) -> None:
        """It comes back at night, without traffic, on errors alone."""
        few.target.answers_in_a_bake = 320
        few.deploy(release("b"))
        few.target.answers_in_a_bake = 10
        assert few.deploy(reference="1").verdict == "proved"
