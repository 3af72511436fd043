"""A deploy that was killed: what it leaves, and what the next one does about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import FIRST, World, release

EVIDENCE = ["begun.json", "deploy.log", "report.json", "report.md", "timeline.svg"]  # of one that compared nothing


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
        """It has no report: that is how the next deploy knows."""
        assert killed.serving == ["a", "b"]
        assert [one.verdict for one in killed.records] == ["proved", None]
        assert killed.file(2, "begun.json")["stage"] == "roll out"

    def test_is_mended_by_the_next_one(self, killed: World) -> None:
        """Its evidence is written and published, its writes are removed; the next deploy is like any other."""
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
        """Cleaning up comes first: the evidence, and the writes."""
        killed.target.releases.objects = ["no"]
        assert killed.deploy().verdict == "failed"
        assert [one.verdict for one in killed.records] == ["proved", "interrupted", "failed"]
        assert sorted(path.name for path in killed.records[1].folder.iterdir()) == EVIDENCE

    def test_is_no_reason_to_trust_what_runs(self, killed: World) -> None:
        """Even if the release that serves is the wanted one, it is rolled out and proved again."""
        killed.target.fleet.replicas = []
        assert killed.deploy(release("a", "0001"), FIRST).verdict == "proved"
        killed.target.records().begin({"stage": "plan"})
        assert killed.deploy().verdict == "proved"
        assert killed.deploy().verdict == "unchanged"

    def test_judges_only_the_new_one_after_it(self, killed: World) -> None:
        """What a killed deploy left may be broken, which is not the fault of the next deploy."""
        killed.target.meanwhile["roll out"] = lambda: killed.target.fleet.breaks.update({"b": ["/list"]})
        told = killed.deploy(release("c"))
        assert told.verdict == "proved"
        assert told.traffic.by_release["b"].failed > 0

    def test_is_left_alone_by_a_dry_run(self, killed: World) -> None:
        """Cleaning up would change something."""
        killed.deploy(dry_run=True)
        assert [one.verdict for one in killed.records] == ["proved", None]
        assert "heal" not in killed.target.asked

    def test_whose_processes_are_gone_is_rolled_out_again(self, served: World) -> None:
        """After a reboot there is no open record, but what should run does not."""
        served.target.fleet.replicas = [replace(one, ready=False) for one in served.target.fleet.replicas]
        assert served.deploy().verdict == "proved"
        assert served.serving == ["a", "a"]
