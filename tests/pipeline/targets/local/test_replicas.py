"""What a replica starts with, and what it said last."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.derived import SET_BY
from pipeline.config.project import LocalEnvironment, Project
from pipeline.config.settings import variables
from pipeline.targets.common.tokens import Tokens
from pipeline.targets.local import launch
from pipeline.targets.local.replicas import last_log_line, read_tokens, write_config
from pipeline.targets.local.site import Site


class TestWriteConfig:
    def test_keeps_secrets_in_files_of_their_own(self, tmp_path: Path) -> None:
        """The environment holds the path of a secret's file and never the secret."""
        folder = write_config(tmp_path, {"LOG_LEVEL": "INFO"}, {"SERVICE_TOKEN": "canary"})
        text = (folder / "env.json").read_text()
        assert "canary" not in text
        assert Path(json.loads(text)["SERVICE_TOKEN_FILE"]).read_text() == "canary"
        assert folder.stat().st_mode & 0o777 == 0o700

    def test_is_named_by_content(self, tmp_path: Path) -> None:
        """The same values are the same folder; another secret is another one, so that a rotation rolls."""
        first = write_config(tmp_path, {"A": "1"}, {"S": "x"})
        assert write_config(tmp_path, {"A": "1"}, {"S": "x"}) == first
        assert write_config(tmp_path, {"A": "1"}, {"S": "y"}) != first

    def test_has_the_port_of_the_edge(self, tmp_path: Path) -> None:
        """The default of FRONTEND_URL follows it; a port in the environment's `url` wins over `.env`."""
        for url, port in (("http://localhost:{EDGE_PORT}", "9191"), ("http://localhost:8081", "8081")):
            env = LocalEnvironment(name="local", url=url)
            (tmp_path / ".env").write_text("EDGE_PORT=9191\n")
            site = Site(Project(root=tmp_path, name="shop", environments={"local": env}, requests=()), env)
            site.layout.make()
            assert json.loads((site.config("a-release") / "env.json").read_text())["EDGE_PORT"] == port
            shutil.rmtree(site.layout.run)

    @pytest.mark.parametrize("given", [{"SERVICE_TOKEN": "a", "SERVICE_TOKEN_PREVIOUS": "b"}, {"SERVICE_TOKEN": "a"}])
    def test_says_which_tokens_its_replica_accepts(self, tmp_path: Path, given: dict[str, str]) -> None:
        """So that the next deploy finds one that this replica and the next ones accept."""
        assert read_tokens(write_config(tmp_path, {}, given)) == Tokens.of(given)


def test_what_is_set_here_is_named_in_the_documents(tmp_path: Path) -> None:
    """Beside what `.env` says; where a replica listens, its program is told."""
    env = LocalEnvironment(name="local", url="http://localhost:{EDGE_PORT}")
    site = Site(Project(root=tmp_path, name="shop", environments={"local": env}, requests=()), env)
    site.layout.make()
    told = json.loads((site.config("a-release") / "env.json").read_text()).keys() & {one.name for one in variables()}
    assert {*SET_BY["local"]} == told - {"POSTGRES_DB", "POSTGRES_USER", "EDGE_PORT"} | {"BACKEND_HOST", "METRICS_PORT"}
    shutil.rmtree(site.layout.run)


class TestLastWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (
                "before\nTraceback (most recent call last):\nModuleNotFoundError: No module named 'x'\n",
                "ModuleNotFoundError: No module named 'x'",
            ),
            ('{"level": "error", "event": "boom", "error": "E"}\n{"level": "info", "event": "request"}\n', "boom E"),
            ('{"level": "info", "event": "started"}\n\n', "its log shows no error"),
        ],
    )
    def test_are_the_error_that_is_nearest_to_the_end(self, tmp_path: Path, text: str, words: str) -> None:
        """An exception's last line, or the newest JSON line of an error."""
        (tmp_path / "log").write_text("old: an error of the release before\n" + text)
        assert last_log_line(tmp_path / "log", offset=36) == words

    def test_are_found_in_a_log_that_was_rotated_meanwhile(self, tmp_path: Path) -> None:
        """A release that says a lot before it ends has a log that is shorter than where its words began."""
        (tmp_path / "log").write_text("noise\n" * 10_000 + "ValueError: the last\n")
        assert last_log_line(tmp_path / "log", offset=10_000_000) == "ValueError: the last"

    def test_may_be_missing(self, tmp_path: Path) -> None:
        """A program that never ran has no log."""
        assert last_log_line(tmp_path / "none", 0) == "it wrote no log"


class TestLaunch:
    def test_gives_a_command_exactly_the_environment_of_the_file(self, tmp_path: Path) -> None:
        """Nothing of the caller's environment, whatever quotes and newlines the values have."""
        value = "a 'b' \"c\" %d\n$e"
        (tmp_path / "env.json").write_text(json.dumps({"VALUE": value}))
        show = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k != 'LC_CTYPE'}))"
        command = [sys.executable, "-I", "-S", launch.__file__, str(tmp_path / "env.json"), "MORE=x=y", "--"]
        done = subprocess.run(
            [*command, sys.executable, "-c", show], env={"CANARY": "1"}, capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == {"VALUE": value, "MORE": "x=y"}
