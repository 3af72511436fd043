"""`nox -s init`: the port that a first `.env` gets."""

from __future__ import annotations

import socket
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.commands import setup
from pipeline.config.project import ComposeEnvironment, Environment, Project
from pipeline.config.settings import DEFAULT_EDGE_PORT, read_values
from pipeline.config.sources import Source
from pipeline.system.ports import next_free_port
from pipeline.system.progress import Progress
from tests.logs import logged
from tests.pipeline.engines.test_occupant import listening


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The default port, which somebody has; another one stands in for it, which may be free on this machine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(setup, "DEFAULT_EDGE_PORT", port)
        yield port


def init(root: Path, *environments: Environment, recover: bool = False) -> str | None:
    """Run it in a clone at `root`; return the port in `.env`."""
    project = Project(root=root, name="shop", environments={one.name: one for one in environments}, requests=())
    setup.init(project, Namespace(recover=recover), Progress())
    return read_values(root, {}).get("EDGE_PORT")


class TestInit:
    def test_writes_the_next_free_port(self, tmp_path: Path, taken: int) -> None:
        """And says who has the usual one."""
        with logged(20) as lines:
            port = init(tmp_path)
        assert port == str(next_free_port(taken))
        assert any(line.startswith(f"port {taken} is taken by ") and f"EDGE_PORT is {port}" in line for line in lines)

    def test_never_touches_a_port_that_stands_there(self, tmp_path: Path, taken: int) -> None:
        """Taken or not, and a second run changes nothing."""
        (tmp_path / ".env").write_text(f"EDGE_PORT={taken}\n")
        assert init(tmp_path) == init(tmp_path) == str(taken)

    def test_keeps_the_port_of_what_runs_here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where `.env` was lost, the deploy is found where it was."""
        with listening(tmp_path / ".slipway/local") as port:
            monkeypatch.setattr(setup, "DEFAULT_EDGE_PORT", port)
            assert init(tmp_path) == str(port)

    def test_takes_back_what_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the place of a fresh value; the superuser's password is a file alone."""
        (tmp_path / ".env").write_text("SERVICE_TOKEN=fresh\nLOG_LEVEL=INFO\n")
        found = {"SERVICE_TOKEN": "the-old-one", "POSTGRES_SUPERUSER_PASSWORD": "root-of-it", "EDGE_PORT": "4321"}
        monkeypatch.setattr(setup, "recovered", lambda _: found)
        monkeypatch.setattr(setup, "finish_recovery", lambda *_: None)
        with logged(20) as lines:
            assert init(tmp_path, recover=True) == "4321"
        values = read_values(tmp_path, {})
        assert (values["SERVICE_TOKEN"], values["LOG_LEVEL"]) == ("the-old-one", "INFO")
        files = tmp_path / ".slipway/compose/secrets"
        assert (files / "SERVICE_TOKEN").read_text() == "the-old-one"
        assert (files / "POSTGRES_SUPERUSER_PASSWORD").read_text() == "root-of-it"
        assert "took back from what runs: SERVICE_TOKEN, EDGE_PORT" in lines
        assert not any("the-old-one" in line or "root-of-it" in line for line in lines)

    def test_writes_the_files_of_compose_from_its_command(self, tmp_path: Path) -> None:
        """Where that gives them, what runs would lose them to those of `.env` with its next start."""
        source = Source(command=("echo", "SERVICE_TOKEN=of-the-command"))
        env = ComposeEnvironment(name="compose", url="http://service.invalid", secrets=source)
        init(tmp_path, env)
        assert (tmp_path / ".slipway/compose/secrets/SERVICE_TOKEN").read_text() == "of-the-command"
        assert read_values(tmp_path, {})["SERVICE_TOKEN"] != "of-the-command"

    def test_usually_is_the_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody has it."""
        free = next_free_port(DEFAULT_EDGE_PORT)
        monkeypatch.setattr(setup, "DEFAULT_EDGE_PORT", free)
        assert init(tmp_path) == str(free)
