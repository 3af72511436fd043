"""`nox -s logs`: which lines it prints, in which order, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.__main__ import parser
from pipeline.engines.kubectl import Kubectl
from pipeline.errors import SlipwayError, UsageError
from pipeline.targets.kubernetes.logs import log_streams
from tests.pipeline.deploy.world import World, release


def record(second: int, event: str = "started", **values: Any) -> str:
    given = {"event": event, "level": "info", "timestamp": f"2026-11-28T10:00:{second:02}.123456Z", **values}
    return json.dumps(given) + "\n"


def request(second: int, ident: str, **values: Any) -> str:
    seen = {"method": "GET", "path": "/list", "route": "/list", "status": 200, "ms": 1.5, "client": "127.0.0.1"}
    return record(second, "request", **seen, request_id=ident, **values)


def run(world: World, *arguments: str) -> Any:
    options = parser("logs").parse_args(["logs", world.target.env.name, *arguments])
    return options.run(world.target.project, options, world.progress(), opened=world.target.opened)


@pytest.fixture
def names(served: World) -> list[str]:
    return [each.name for each in served.target.fleet.replicas]


class TestLogs:
    def test_prints_the_records_of_all_replicas_by_time(
        self, served: World, names: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A line without a time stays behind the one before it."""
        served.target.fleet.said = {
            names[0]: record(1) + "Traceback\n" + record(4),
            names[1]: record(2, "other", level="error", pool=3) + request(3, "r-1", release="v1"),
        }
        run(served)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["10:00:01.123", names[0], "info", "started"]
        assert lines[1].split() == [names[0], "Traceback"]
        assert lines[2].split() == ["10:00:02.123", names[1], "error", "other", "pool=3"]
        seen = ["GET", "/list", "200", "1.5", "ms", "route=/list", "client=127.0.0.1", "request_id=r-1", "v1"]
        assert lines[3].split() == ["10:00:03.123", names[1], "info", *seen]
        assert lines[4].split()[0] == "10:00:04.123"
        assert len(lines) == 5

    def test_prints_json_lines_for_programs(
        self, served: World, names: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """As the service wrote them, with the replica; a line that is none becomes one."""
        served.target.fleet.said = {names[0]: request(1, "r-1") + "plain\n"}
        run(served, "--json")
        first, second = map(json.loads, capsys.readouterr().out.splitlines())
        assert first == {"replica": names[0], **json.loads(request(1, "r-1"))}
        assert second == {"replica": names[0], "event": "plain", "timestamp": first["timestamp"]}

    @pytest.mark.parametrize(
        ("wanted", "found"), [("r-1", ["r-1"]), ("r", ["a plain r-3"]), ("r-3", ["a plain r-3"]), ("none", [])]
    )
    def test_finds_a_request_by_its_id(
        self, served: World, names: list[str], capsys: pytest.CaptureFixture[str], wanted: str, found: list[str]
    ) -> None:
        """By the whole id, in a record; a line of LOG_FORMAT=console mentions it."""
        served.target.fleet.said = {names[0]: request(1, "r-1") + request(2, "r-2") + "a plain r-3\n"}
        run(served, "--request", wanted, "--json")
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line.get("request_id", line["event"]) for line in lines] == found

    def test_finds_a_release_that_runs_and_one_that_was_undone(
        self, served: World, names: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What a failed one said was kept by its deploy."""
        fleet = served.target.fleet
        fleet.breaks["bad1"] = {"/list"}
        told = served.deploy(release("bad1"))
        assert told.verdict == "rolled_back"
        (served.records[-1].folder / "service.log").write_text(record(2, "broken", release="bad1"))
        serving = fleet.replicas[0].release
        fleet.said = {fleet.replicas[0].name: record(1, release=serving) + record(3, release="another")}
        run(served, "--release", serving, "--json")
        run(served, "--release", "bad1", "--json")
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(line["event"], line["release"]) for line in lines] == [("started", serving), ("broken", "bad1")]

    def test_refuses_a_release_that_is_not_recorded(self, served: World) -> None:
        """As `rollback` does."""
        with pytest.raises(UsageError, match="no release `nothing` is recorded"):
            run(served, "--release", "nothing")

    def test_says_that_nothing_runs(self, world: World) -> None:
        """And how to change that."""
        with pytest.raises(SlipwayError, match=r"^nothing runs in here: `nox -s deploy -- here` starts it$"):
            run(world)


class TestLogStreams:
    """Of pods: which container, and whether the one before it is shown, too."""

    @staticmethod
    def commands(state: dict[str, Any], *, follow: bool, **status: Any) -> dict[str, str]:
        pod = {
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "backend"}, {"name": "beside"}]},
            "status": {"containerStatuses": [{"name": "backend", "state": state, **status}, {"name": "beside"}]},
        }
        found = log_streams(Kubectl("c", "n"), [pod], follow=follow)
        return {one.name: " ".join(one.command).partition("logs ")[2] for one in found}

    def test_shows_the_log_of_a_running_one(self) -> None:
        """Whole, or from now on: its start makes it another stream than the one before."""
        running = {"running": {"startedAt": "2026-11-28T10:00:00Z"}}
        assert self.commands(running, follow=False) == {"p": "p --container=backend"}
        followed = "p --container=backend --follow --since-time=2026-11-28T10:00:00Z --tail=10"
        assert self.commands(running, follow=True) == {"p": followed}

    def test_shows_what_a_crashed_one_said(self) -> None:
        """Also while the next one waits."""
        before = {"terminated": {"exitCode": 1}}
        waiting = self.commands({"waiting": {"reason": "CrashLoopBackOff"}}, follow=False, lastState=before)
        assert waiting == {"p (before)": "p --container=backend --previous"}
        assert self.commands({"waiting": {}}, follow=True, lastState=before) == {}

    def test_leaves_out_one_that_has_not_begun(self) -> None:
        """It has no log."""
        assert self.commands({"waiting": {"reason": "ContainerCreating"}}, follow=False) == {}
