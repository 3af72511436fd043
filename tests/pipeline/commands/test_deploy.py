"""The verbs that tell a story: what they print, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack

import pytest

from pipeline.commands import deploy
from pipeline.config.sources import Source
from pipeline.errors import LockHeld, SlipwayError, UsageError
from tests.pipeline.deploy.world import World, migration, release


class TestDeploy:
    def test_says_what_happened_and_where(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """For a person: a sentence and the address."""
        assert world.run("deploy") == (0, None)
        said = capsys.readouterr().out
        assert "Release a serves here: 320 requests, none failed" in said
        assert said.endswith("http://service.invalid\n")

    def test_gives_the_report_to_a_program(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """With `--json`, and nothing else is printed."""
        code, report = world.run("deploy", "--json")
        assert (code, report["verdict"]) == (0, "proved")
        assert json.loads(json.dumps(report)) == world.file(1, "report.json")
        assert capsys.readouterr().out == ""

    def test_gives_the_exit_code_of_the_story(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """A deploy that was rolled back has failed, and the output says what serves."""
        served.target.releases.tree = release("cccc")
        served.target.fleet.unready.add("cccc")
        assert served.run("deploy") == (1, None)
        said = " ".join(capsys.readouterr().out.split())
        assert "Release cccc was undone on here: board-5 never got ready; none of " in said
        assert " requests failed until it was undone; release bbbb serves again" in said

    def test_says_which_settings_of_the_shell_it_takes(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of a recorded release are its own: the shell's reach only what is built now."""
        (served.target.project.root / ".env").write_text("LOG_LEVEL=INFO\n")
        monkeypatch.setenv("LOG_LEVEL", "DEBUG")
        served.run("deploy")
        line = "LOG_LEVEL: the environment has `DEBUG`, where .env has `INFO`, and wins"
        assert served.said.count(line) == 1
        served.run("rollback", "--release", "1")
        assert served.said.count(line) == 1

    def test_says_of_no_secret_that_it_wins_where_a_command_gives_them(
        self, served: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The shell's counts nothing there."""
        (served.target.project.root / ".env").write_text("SERVICE_TOKEN=a-token\n")
        monkeypatch.setenv("SERVICE_TOKEN", "another")
        served.run("deploy")
        assert served.said.count("SERVICE_TOKEN: the environment has another one than .env, and wins") == 1
        sourced = served.target.env.model_copy(update={"secrets": Source(command=("true",))})
        served.target.env = served.target.project.environments["here"] = sourced
        served.run("deploy")
        assert served.said.count("SERVICE_TOKEN: the environment has another one than .env, and wins") == 1

    def test_says_of_no_refused_store_that_it_wins(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """The target refuses one that would not be used: it must not say both. A URL is used, and no line has it."""
        (served.target.project.root / ".env").write_text("LOG_LEVEL=INFO\n")
        for name in ("POSTGRES_HOST", "DATABASE_URL", "REDIS_HOST"):
            monkeypatch.setenv(name, "db.example.org")
        served.run("deploy")
        assert [line.split()[1] for line in served.said.splitlines() if "and wins" in line] == ["DATABASE_URL:"]
        assert "db.example.org" not in served.said

    def test_passes_its_options_on(self, served: World) -> None:
        """Each option has its effect."""
        served.target.releases.tree = release("cccc")
        assert served.run("deploy", "--dry-run", "--json")[1]["verdict"] == "unchanged"
        assert served.serving == ["bbbb", "bbbb"]
        served.target.database.gone = True
        with pytest.raises(UsageError, match="the data is gone"):
            served.run("deploy")
        assert served.run("deploy", "--empty-database", "--release", "1", "--json")[1]["release"] == "aaaa"
        served.target.database.gone = False
        served.target.releases.tree = release("dddd", "0001")
        served.target.database.migrations_of["dddd"] = [migration("0001", sql="SELECT 1;")]
        served.target.database.applied = {"0001": ""}
        assert served.run("deploy")[0] == 1
        assert served.run("deploy", "--forget-migration", "0001")[0] == 0

    def test_passes_forward_on(self, served: World) -> None:
        """The serving release comes from a commit that this clone does not have."""
        root = served.target.project.root
        git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@example.com"]
        subprocess.run(["git", "init", "--quiet", root], check=True)
        subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True)
        served.target.records().note(served.records[-1], commit="f" * 40)
        with pytest.raises(UsageError, match="not in this clone"):
            served.run("deploy", "--forward")
        assert served.run("deploy")[0] == 0

    def test_annotates_a_failure_on_github(
        self, served: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With or without a report; a success gets no annotation."""
        monkeypatch.setenv("GITHUB_ACTIONS", "true")
        assert served.run("deploy")[0] == 0
        assert "::error" not in capsys.readouterr().err
        served.target.releases.objects = ["no"]
        assert served.run("deploy")[0] == 1
        assert "::error title=deploy here::The deploy of release bbbb to here failed: no" in capsys.readouterr().err
        served.target.wrong = ["nothing is set"]
        with pytest.raises(UsageError):
            served.run("deploy")
        assert "::error title=deploy here::nothing is set\n" in capsys.readouterr().err


class TestRollback:
    def test_goes_back_to_the_release_before(self, served: World) -> None:
        """The proof is the same, and nothing is built."""
        code, report = served.run("rollback", "--json")
        assert (code, report["verdict"], report["release"]) == (0, "proved", "aaaa")
        assert (served.serving, "build" in served.target.asked) == (["aaaa", "aaaa"], False)

    def test_goes_to_the_one_that_is_named(self, served: World) -> None:
        """By its number, or by its name."""
        served.target.fleet.replicas.clear()
        served.serve(release("cccc"))
        assert served.run("rollback", "--release", "1", "--json")[1]["release"] == "aaaa"
        assert served.run("rollback", "--release", "bbbb", "--json")[1]["release"] == "bbbb"

    def test_needs_one_to_go_back_to(self, world: World) -> None:
        """Exit code 2, with what to do."""
        with pytest.raises(UsageError, match="`nox -s deploy` first"):
            world.run("rollback")


class TestRollbackOfAnUnfinishedDeploy:
    def test_is_nothing_where_there_is_none(self, served: World) -> None:
        """No target is asked for anything."""
        assert served.run("rollback", "--unfinished") == (0, None)
        assert served.run("rollback", "--unfinished", "--json") == (0, {"environment": "here", "unfinished": False})
        assert served.target.asked == []

    def test_brings_back_what_was_proved_before_it(self, served: World) -> None:
        """It does not go one release further back."""
        served.target.fleet.start(release("cccc"))
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        code, report = served.run("rollback", "--unfinished", "--json")
        assert (code, report["verdict"], report["release"]) == (0, "proved", "bbbb")
        assert served.serving == ["bbbb", "bbbb"]
        assert [one.verdict for one in served.records] == ["proved", "proved", "interrupted", "proved"]

    def test_needs_one_that_was_proved(self, world: World) -> None:
        """Without one, the message says to deploy."""
        world.target.records().begin({"release": "a", "stage": "roll out"})
        with pytest.raises(SlipwayError, match="none was proved before it: `nox -s deploy -- here`"):
            world.run("rollback", "--unfinished")

    def test_waits_for_one_that_undoes_itself(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """That deploy holds the lock. The wait ends with its report, or its death, which leaves something to undo."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        other = ExitStack()
        other.enter_context(served.target.lock())
        waited: list[float] = []

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 3:
                other.close()

        monkeypatch.setattr(time, "sleep", sleep)
        code, report = served.run("rollback", "--unfinished", "--json")
        assert (code, report["release"], waited) == (0, "bbbb", [1, 1, 1])
        assert [one["name"] for one in report["stages"]] == ["plan", "build", "check", "migrate", "roll out", "prove"]

    def test_does_not_wait_for_ever(self, served: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It gives up with exit code 75, because a job on GitHub has only five minutes."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        monkeypatch.setattr(deploy, "UNDOING_SECONDS", -1)
        with served.target.lock(), pytest.raises(LockHeld):
            served.run("rollback", "--unfinished")
