"""The verbs that tell a story or read of it: what they print, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline.__main__ import parser
from pipeline.commands import deploys as verbs
from pipeline.errors import DeployFailed, LockHeld, SlipwayError, UsageError
from tests.pipeline.deploy.world import World, migration, release

Result = tuple[int, Any]


@pytest.fixture
def served(world: World) -> World:
    """Release a serves, and b was proved after it."""
    world.serve(release("aaaa"))
    world.target.fleet.replicas.clear()
    world.serve(release("bbbb"))
    return world


def run(world: World, verb: str, *arguments: str) -> Result:
    """Run a verb of the command line on the fake."""
    options = parser().parse_args([verb, world.target.env.name, *arguments])
    how: Any = getattr(verbs, verb)
    maker = {"begin": world.begin} if verb in ("deploy", "rollback") else {"opened": world.target.opened}
    result: Result = how(world.target.project, options, world.progress(), **maker)
    return result


class TestDeploy:
    def test_says_what_happened_and_where(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """For a person: a sentence and the address."""
        assert run(world, "deploy") == (0, None)
        said = capsys.readouterr().out
        assert "Release a serves here: 8 requests, none failed" in said
        assert said.endswith("http://service.invalid\n")

    def test_gives_the_report_to_a_program(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """With --json, and nothing beside it."""
        code, report = run(world, "deploy", "--json")
        assert (code, report["verdict"]) == (0, "proved")
        assert json.loads(json.dumps(report)) == world.file(1, "report.json")
        assert capsys.readouterr().out == ""

    def test_gives_the_exit_code_of_the_story(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """A rollback that worked is a deploy that failed, and what serves is said."""
        served.target.releases.tree = release("cccc")
        served.target.fleet.unready.add("cccc")
        assert run(served, "deploy") == (1, None)
        assert "Release cccc was undone on here: board-5 never got ready; release bbbb serves again" in (
            " ".join(capsys.readouterr().out.split())
        )

    def test_passes_its_options_on(self, served: World) -> None:
        """Each does what it says."""
        served.target.releases.tree = release("cccc")
        assert run(served, "deploy", "--dry-run", "--json")[1]["verdict"] == "unchanged"
        assert served.serving == ["bbbb", "bbbb"]
        served.target.database.gone = True
        with pytest.raises(UsageError, match="the data is gone"):
            run(served, "deploy")
        assert run(served, "deploy", "--empty-database", "--release", "1", "--json")[1]["release"] == "aaaa"
        served.target.database.gone = False
        served.target.releases.tree = release("dddd", "0001")
        served.target.database.migrations_of["dddd"] = [migration("0001", sql="SELECT 1;")]
        served.target.database.applied = {"0001": ""}
        assert run(served, "deploy")[0] == 1
        assert run(served, "deploy", "--forget-migration", "0001")[0] == 0

    def test_passes_forward_on(self, served: World) -> None:
        """What serves is of a commit that this clone has not."""
        root = served.target.project.root
        git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", "init", "--quiet", root], check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
        served.target.records().note(served.records[-1], commit="f" * 40)
        with pytest.raises(UsageError, match="not in this clone"):
            run(served, "deploy", "--forward")
        assert run(served, "deploy")[0] == 0

    def test_annotates_a_failure_on_github(
        self, served: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Whether a report was begun or not; a success has none."""
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert run(served, "deploy")[0] == 0
        assert "::error" not in capsys.readouterr().err
        served.target.releases.objects = ["no"]
        assert run(served, "deploy")[0] == 1
        assert "::error title=deploy here::The deploy of release bbbb to here failed: no" in capsys.readouterr().err
        served.target.wrong = ["nothing is set"]
        with pytest.raises(UsageError):
            run(served, "deploy")
        assert "::error title=deploy here::nothing is set\n" in capsys.readouterr().err


class TestRollback:
    def test_goes_back_to_the_release_before(self, served: World) -> None:
        """With the same proof; nothing is built."""
        code, report = run(served, "rollback", "--json")
        assert (code, report["verdict"], report["release"]) == (0, "proved", "aaaa")
        assert (served.serving, "build" in served.target.asked) == (["aaaa", "aaaa"], False)

    def test_goes_to_the_one_that_is_named(self, served: World) -> None:
        """By its number, or by its name."""
        served.target.fleet.replicas.clear()
        served.serve(release("cccc"))
        assert run(served, "rollback", "--release", "1", "--json")[1]["release"] == "aaaa"
        assert run(served, "rollback", "--release", "bbbb", "--json")[1]["release"] == "bbbb"

    def test_needs_one_to_go_back_to(self, world: World) -> None:
        """Exit code 2, with what to do."""
        with pytest.raises(UsageError, match="`nox -s deploy` first"):
            run(world, "rollback")


class TestRollbackOfAnUnfinishedDeploy:
    def test_is_nothing_where_there_is_none(self, served: World) -> None:
        """No story is told."""
        assert run(served, "rollback", "--unfinished") == (0, None)
        assert run(served, "rollback", "--unfinished", "--json") == (0, {"environment": "here", "unfinished": False})
        assert served.target.asked == []

    def test_brings_back_what_was_proved_before_it(self, served: World) -> None:
        """And not the release before that one."""
        served.target.fleet.start(release("cccc"))
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        code, report = run(served, "rollback", "--unfinished", "--json")
        assert (code, report["verdict"], report["release"]) == (0, "proved", "bbbb")
        assert served.serving == ["bbbb", "bbbb"]
        assert [one.verdict for one in served.records] == ["proved", "proved", "interrupted", "proved"]

    def test_needs_one_that_was_proved(self, world: World) -> None:
        """Otherwise a deploy is the way."""
        world.target.records().begin({"release": "a", "stage": "roll out"})
        with pytest.raises(SlipwayError, match="none was proved before it: `nox -s deploy -- here`"):
            run(world, "rollback", "--unfinished")

    def test_waits_for_one_that_undoes_itself(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It has the lock; its report ends the waiting, or it dies, and then there is something to undo."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        other = ExitStack()
        other.enter_context(served.target.lock())
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.close()

        monkeypatch.setattr(time, "sleep", sleep)
        code, report = run(served, "rollback", "--unfinished", "--json")
        assert (code, report["release"], waited) == (0, "bbbb", [1, 1, 1])
        assert [one["name"] for one in report["stages"]] == ["plan", "build", "check", "migrate", "roll out", "prove"]

    def test_does_not_wait_for_ever(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A job on GitHub has five minutes for it; exit code 75."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        monkeypatch.setattr(verbs, "UNDOING_SECONDS", -1)
        with served.target.lock(), pytest.raises(LockHeld):
            run(served, "rollback", "--unfinished")


class TestStatus:
    def test_says_what_serves(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Each replica, and who holds the lock."""
        assert run(served, "status") == (0, None)
        said = capsys.readouterr().out
        assert "release bbbb (number 2, proved 2026-01-01T00:00:00+00:00)" in said
        assert said.count("ready  RUNNING since") == 2
        assert "lock:" not in said

    def test_is_a_document_for_programs(self, served: World) -> None:
        """The contract's names."""
        with served.target.lock():
            code, document = run(served, "status", "--json")
        assert code == 0
        assert [document[key] for key in ("environment", "target", "url", "release", "number")] == [
            *("here", "local", "http://service.invalid", "bbbb", 2)
        ]
        assert [one["release"] for one in document["replicas"]] == ["bbbb", "bbbb"]
        assert document["lock"]["pid"] > 0
        assert json.loads(json.dumps(document)) == document

    def test_fails_where_a_release_should_serve_and_none_does(
        self, served: World, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Exit code 1; without any deploy, nothing should."""
        served.target.fleet.replicas.clear()
        assert run(served, "status") == (1, None)
        assert "no replica is running: `nox -s deploy`" in capsys.readouterr().out

    def test_of_nothing_is_no_failure(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Nothing was deployed yet."""
        assert run(world, "status") == (0, None)
        assert "nothing deployed yet" in capsys.readouterr().out


class TestReleases:
    def test_lists_the_newest_first(self, served: World) -> None:
        """Those that one can go back to are marked."""
        served.target.fails["objections"] = DeployFailed("no")
        served.target.releases.tree = release("cccc")
        assert run(served, "deploy")[0] == 1
        code, rows = run(served, "releases", "--json")
        assert code == 0
        assert [(one["number"], one["release"], one["verdict"], one["retained"]) for one in rows] == [
            (3, "cccc", "failed", False),
            (2, "bbbb", "proved", True),
            (1, "aaaa", "proved", True),
        ]

    def test_prints_them_as_a_table(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """With how to go back to one."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        assert run(served, "releases") == (0, None)
        said = capsys.readouterr().out
        assert "bbbb *" in said
        assert "died" in said
        assert "--release NUMBER" in said

    def test_of_nothing_says_how_to_begin(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """A first deploy."""
        assert run(world, "releases") == (0, None)
        assert "`nox -s deploy -- here`" in capsys.readouterr().out
