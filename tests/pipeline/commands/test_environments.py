"""The verbs that read what was deployed: what they print, and their exit codes."""

from __future__ import annotations

import json

import pytest

from pipeline.errors import DeployFailed, Interrupted
from pipeline.releases.records import write_json
from tests.pipeline.deploy.world import World, release


class TestStatus:
    def test_says_what_serves(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Each replica, and who holds the lock."""
        assert served.run("status") == (0, None)
        said = capsys.readouterr().out
        assert "release bbbb (number 2, proved 2026-01-01T00:00:00+00:00)" in said
        assert said.count("ready  RUNNING since") == 2
        assert "lock:" not in said

    def test_is_a_document_for_programs(self, served: World) -> None:
        """The document has the names of the contract."""
        with served.target.lock():
            code, document = served.run("status", "--json")
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
        """The exit code is 1."""
        served.target.fleet.replicas.clear()
        assert served.run("status") == (1, None)
        assert "no replica is running: `nox -s deploy`" in capsys.readouterr().out

    def test_of_nothing_is_no_failure(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """Before the first deploy, no release should serve."""
        assert world.run("status") == (0, None)
        assert "nothing deployed yet" in capsys.readouterr().out

    def test_can_be_watched(
        self, served: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each look sees what runs by then, until Ctrl-C."""
        left = iter([1])

        def pause(_: float) -> None:
            served.target.fleet.replicas.pop()
            if not next(left, None):
                raise Interrupted("stopped by SIGINT")

        monkeypatch.setattr("time.sleep", pause)
        with pytest.raises(Interrupted):
            served.run("status", "--watch", "--json")
        looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(one["release"], len(one["replicas"])) for one in looks] == [("bbbb", 2), ("bbbb", 1)]


class TestReleases:
    def test_lists_the_newest_first(self, served: World) -> None:
        """Releases that can be shipped again are marked."""
        served.target.fails["objections"] = DeployFailed("no")
        served.target.releases.tree = release("cccc")
        assert served.run("deploy")[0] == 1
        code, rows = served.run("releases", "--json")
        assert code == 0
        assert [(one["number"], one["release"], one["verdict"], one["retained"]) for one in rows] == [
            (3, "cccc", "failed", False),
            (2, "bbbb", "proved", True),
            (1, "aaaa", "proved", True),
        ]

    def test_prints_them_as_a_table(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """The output says how to go back to a release."""
        served.target.records().begin({"release": "cccc", "stage": "roll out"})
        assert served.run("releases") == (0, None)
        said = capsys.readouterr().out
        assert "bbbb *" in said
        assert "died" in said
        assert "--release NUMBER" in said

    def test_fits_a_terminal_of_80_columns(self, served: World, capsys: pytest.CaptureFixture[str]) -> None:
        """With whole times and reasons, the longest names, and a mark where the tree was dirty."""
        facts = {"release": f"sha256:{'c' * 64}+12345678", "commit": "d" * 40, "dirty": True, "stage": "prove"}
        record = served.target.records().begin({**facts, "started": "2026-11-27T20:30:01+02:00"})
        reason = f"12 of 251 requests failed: {'a long reason, '[:-1] * 12}[end]"
        write_json(record.folder / "report.json", {"verdict": "inconclusive", "reason": reason, "rollback": {}})
        served.target.records().begin({**facts, "dirty": False, "started": None})
        assert served.run("releases") == (0, None)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert [line.split()[0] for line in lines if line[:1].isdigit()] == ["4", "3", "2", "1"]
        [row] = [line for line in lines if line.startswith("3 ")]
        assert row.split() == ["3", "cccccccccccc…+12345678", "inconclusive", "2026-11-27", "18:30:01", "ddddddd-dirty"]
        assert "".join(line.strip() for line in lines[3:-3]).replace(" ", "") == reason.replace(" ", "")
        [died] = [line for line in lines if line.startswith("4 ")]
        assert died.split()[2:] == ["died", "-", "ddddddd"]
        _, rows = served.run("releases", "--json")
        assert [row["dirty"] for row in rows] == [False, True, False, False]

    def test_of_nothing_says_how_to_begin(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        """The message names the command of a first deploy."""
        assert world.run("releases") == (0, None)
        assert "`nox -s deploy -- here`" in capsys.readouterr().out
