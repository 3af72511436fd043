"""What a proof leaves unwatched, shows to people, or leaves in the database: what is said of it, and what is done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.config.requests import ReadBack, RequestSpec
from pipeline.deploy.evidence import summary_line
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from tests.pipeline.deploy.fake_traffic import FakeTraffic
from tests.pipeline.deploy.script import Killed
from tests.pipeline.deploy.world import LIST, Told, World, release

OTHER = RequestSpec(name="other", method="GET", path="/other")
WRITE = RequestSpec(
    name="write",
    method="POST",
    path="/notes/{unique}",
    writes=True,
    readback=ReadBack(path="/notes/{unique}"),
    remove="command",
)


def removals(world: World) -> list[str]:
    """What the command was told in the last deploy."""
    return [line for line in world.target.asked if line.startswith("synthetic")]


class TestUnwatched:
    def test_is_said_in_the_report_and_in_the_last_line(self, served: World) -> None:
        """Two tables that share nothing: /health alone was asked while replicas were exchanged."""
        told = served.deploy(Artifact("b", Source(None, dirty=False), None, (OTHER,)))
        assert (told.verdict, told.traffic.failed) == ("proved", 0)
        line = "the rollout was watched by /health alone, not by `list`, `one`: the two releases share no other request"
        assert told.report.remarks == (line,)
        assert summary_line(told.report).endswith(f"; {line}")
        assert f"Remark: {line.replace('`', '`')}." in (served.records[-1].folder / "report.md").read_text()

    def test_is_watched_by_health_all_the_same(self, served: World) -> None:
        """A process that dies on the way is found."""
        served.target.fleet.breaks["b"] = ["/health"]
        told = served.deploy(Artifact("b", Source(None, dirty=False), None, (OTHER,)))
        assert told.verdict == "rolled_back"
        assert "all answered by release b (first: GET /health → 500)" in told.reason

    @pytest.mark.parametrize("refuse", [True, False])
    def test_leaves_out_the_writes_while_replicas_refuse_the_token(self, writing: World, refuse: bool) -> None:
        """And the way to avoid that is said; where they accept it, writes are sent from the baseline on."""
        writing.target.fleet.refuse_token = refuse
        sent: dict[str, bool] = {}

        class Noted(FakeTraffic):
            def phase(self, name: str, requests: Sequence[RequestSpec] | None = None) -> None:
                super().phase(name, requests)
                sent[name] = WRITE in self._specs

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.pipeline.deploy.world.FakeTraffic", Noted)
            told = writing.deploy(release("c", None, WRITE))
        assert told.verdict == "proved"
        assert (sent["rollout"], sent["bake"]) == (not refuse, True)
        assert ("SERVICE_TOKEN_PREVIOUS" in writing.said) is refuse

    def test_is_nothing_to_say_where_one_request_is_shared(self, served: World) -> None:
        """That one watches."""
        assert served.deploy(Artifact("b", Source(None, dirty=False), None, (LIST, OTHER))).report.remarks == ()


class TestShownToPeople:
    def test_is_refused(self, served: World) -> None:
        """With the name of the route; the release of before comes back, whatever that shows."""
        served.target.exposed = ("/list",)
        told = served.deploy(release("b"))
        assert (told.code, told.verdict) == (1, "rolled_back")
        assert told.reason.startswith("GET /list shows people what the proof wrote: leave out what a synthetic caller")
        assert told.rollback.verdict == "proved"

    def test_does_not_keep_a_proved_release_from_coming_back(self, served: World) -> None:
        """At night, a release that shows such rows is better than one that is broken; it is said."""
        served.deploy(release("b"))
        served.target.exposed = ("/list",)
        told = served.deploy(reference="1")
        assert (told.verdict, served.serving) == ("proved", ["a", "a"])
        assert told.report.remarks == ("GET /list shows people what the proof wrote, as before",)


@pytest.fixture(name="writing")
def _writing(served: World) -> World:
    """A service whose release b has a command that removes what was written; the next tree is c."""
    served.deploy(release("b", None, WRITE))
    return served


class TestRemoval:
    def deployed(self, world: World, name: str = "c") -> Told:
        """Deploy a release that has the command."""
        return world.deploy(release(name, None, WRITE))

    def test_gives_the_ids_of_this_proof_to_the_command_of_the_newest_release(self, writing: World) -> None:
        """Of the rows of others the command is told nothing."""
        told = self.deployed(writing)
        assert told.verdict == "proved"
        (line,) = removals(writing)
        assert line.startswith("synthetic c: remove ")
        assert int(line.split()[-1]) > 0
        assert (told.report.unremoved, told.report.remarks) == (None, ())
        assert "removed " in writing.said

    def test_of_a_release_that_was_undone_has_its_own_command_too(self, served: World) -> None:
        """The one before has none; and both proofs have written by then."""
        served.target.fleet.breaks["b"] = ["/one"]
        told = self.deployed(served, "b")
        assert told.verdict == "rolled_back"
        assert all(line.startswith("synthetic b: remove") for line in removals(served))

    def test_that_fails_is_a_remark_and_is_tried_again(self, writing: World) -> None:
        """The verdict stays; `doctor` says it; the next deploy takes all that is older, as nobody knows the ids."""
        writing.target.fails["synthetic"] = SlipwayError("the command did not end within 60 s")
        told = self.deployed(writing)
        assert (told.code, told.verdict, told.report.unremoved) == (0, "proved", "the command did not end within 60 s")
        line = (
            "what the proof wrote is still there, and the next deploy tries again to remove it: the command did not end"
        )
        assert summary_line(told.report).partition(f"; {line}")[1]
        finding = (
            "what a proof wrote is still in the database: the command did not end within 60 s: `nox -s deploy -- here`"
        )
        assert any(one.startswith(finding) for one in writing.run("doctor", "--json")[1]["findings"])
        told = self.deployed(writing, "d")
        assert removals(writing)[0].startswith("synthetic d: remove --before ")
        assert told.report.unremoved is None
        assert not any("what a proof wrote" in one for one in writing.run("doctor", "--json")[1]["findings"])
        self.deployed(writing, "e")
        assert "--before" not in removals(writing)[0]

    def test_is_tried_again_by_a_deploy_that_changes_nothing(self, writing: World) -> None:
        """`doctor` names `deploy`, and often there is nothing new to ship."""
        writing.target.fails["synthetic"] = SlipwayError("away")
        self.deployed(writing)
        told = writing.deploy()
        assert (told.verdict, told.report.unremoved) == ("unchanged", None)
        assert removals(writing) == ["synthetic c: remove --before 0"]
        assert writing.deploy().verdict == "unchanged"
        assert removals(writing) == []

    def test_is_not_forgotten_by_a_deploy_that_fails_early(self, writing: World) -> None:
        """Where nothing was built, nobody knows whether there is a command."""
        writing.target.fails["synthetic"] = SlipwayError("away")
        self.deployed(writing)
        writing.target.fails["build"] = SlipwayError("no space left")
        assert self.deployed(writing, "d").report.unremoved == "away"
        assert self.deployed(writing, "d").report.unremoved is None

    def test_after_a_killed_deploy_takes_what_is_older(self, writing: World) -> None:
        """It told nobody its ids."""
        writing.target.fails["snapshot"] = Killed()
        with pytest.raises(Killed):
            self.deployed(writing)
        told = self.deployed(writing)
        assert told.verdict == "proved"
        assert removals(writing)[0].startswith("synthetic c: remove --before ")

    def test_after_a_killed_deploy_does_not_depend_on_our_clock(
        self, writing: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It was set back since, or the database's is ahead: what was written is not older than this moment."""
        writing.target.fails["snapshot"] = Killed()
        with pytest.raises(Killed):
            self.deployed(writing)
        told: list[str] = []

        def command(_release: Artifact, _module: str, *arguments: str, stdin: str) -> str:
            told.extend(arguments)
            return f'{{"removed": {len(stdin.splitlines())}}}'

        monkeypatch.setattr(writing.target.database, "command", command)
        self.deployed(writing)
        assert datetime.fromisoformat(told[told.index("--before") + 1]) > datetime.now(UTC) + timedelta(hours=12)

    def test_wants_a_number(self, writing: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A command that prints something else has not said what it did."""
        monkeypatch.setattr(writing.target.database, "command", lambda *_, **__: "done\n[1]\n", raising=False)
        told = self.deployed(writing)
        assert told.report.unremoved == "python -m backend.synthetic printed `done\n[1]` instead of a number as JSON"

    def test_is_not_asked_of_a_service_with_a_delete(self, served: World) -> None:
        """Nor by a dry run."""
        served.deploy(release("b"))
        assert removals(served) == []
        served.deploy(release("c", None, WRITE), dry_run=True)
        assert removals(served) == []

    def test_splits_many_ids(self, writing: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a cluster they are part of a Job, which has a largest size; what is older is named once."""
        monkeypatch.setattr("pipeline.deploy.removal.AT_ONCE", 5)
        writing.target.fails["synthetic"] = SlipwayError("away")
        self.deployed(writing)
        self.deployed(writing, "d")
        first, *rest = removals(writing)
        assert first == "synthetic d: remove --before 5"
        assert rest
        assert all(line.startswith("synthetic d: remove ") and "--before" not in line for line in rest)


def test_the_report_says_how_to_find_a_request_in_the_log(served: World) -> None:
    """With the id of the first one that failed, so that the line can be copied."""
    served.target.fleet.breaks["b"] = ["/list"]
    told = served.deploy(release("b"))
    assert told.report.log == "nox -s logs -- here --request REQUEST_ID"
    ident = told.traffic.failures["5xx"].examples[0].request_id
    assert f"`nox -s logs -- here --request {ident}` finds the first request above" in (
        (served.records[-1].folder / "report.md").read_text()
    )
    assert [path.name for path in served.records[-1].folder.glob("service.log")] == []
    assert "goes back" not in (served.records[-1].folder / "report.md").read_text()


def test_the_log_of_what_was_undone_is_kept_where_it_would_be_lost(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine removes it with the replica, which is when somebody wants to read it."""
    monkeypatch.setattr(served.target.fleet, "log", lambda release: f"{release} said no\n", raising=False)
    served.target.fleet.breaks["b"] = ["/list"]
    told = served.deploy(release("b"))
    path = served.records[-1].folder / "service.log"
    assert path.read_text() == "b said no\n"
    assert told.report.log
    assert told.report.log.startswith("grep -F REQUEST_ID ")
    assert told.report.log.endswith("/2/service.log")


def test_a_first_release_has_none_to_go_back_to(world: World) -> None:
    """The report offers no rollback."""
    world.deploy(release("a"))
    assert "nox -s rollback" not in (world.records[-1].folder / "report.md").read_text()
    world.deploy(release("b"))
    assert "`nox -s rollback -- here` goes back" in (world.records[-1].folder / "report.md").read_text()
