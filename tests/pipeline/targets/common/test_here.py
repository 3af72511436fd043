"""What targets on one machine share: the edge's port, and what is said where somebody else has it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.project import ComposeEnvironment, Project
from pipeline.system.ports import free_port
from pipeline.targets.common.here import SiteHere, own_port
from tests.pipeline.engines.test_occupant import listening

ANY = "http://localhost:{EDGE_PORT}"


class Site(SiteHere):
    """The site of a clone at `root`, whose `compose` has the address `url`."""

    def __init__(self, root: Path, url: str = ANY) -> None:
        self.env = ComposeEnvironment(name="compose", url=url)
        self.project = Project(root=root, name="shop", environments={"compose": self.env}, requests=())
        self.read_settings()


@pytest.fixture(autouse=True)
def _no_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    monkeypatch.delenv("EDGE_PORT", raising=False)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class TestOwnPort:
    @pytest.mark.parametrize(
        ("url", "port"),
        [
            (ANY, None),
            ("http://localhost:8081", 8081),
            ("http://127.0.0.1:8081/shop", 8081),
            ("http://[::1]:8081", 8081),
            ("http://shop.localhost:8081", 8081),
            ("http://localhost", None),
            ("https://localhost:8443", None),
            ("http://shop.example.com:8081", None),
        ],
    )
    def test_is_named_by_an_address_of_this_machine(self, url: str, port: int | None) -> None:
        """With EDGE_PORT in it, or of a proxy before the edge, it names none."""
        assert own_port(ComposeEnvironment(name="compose", url=url)) == port

    def test_wins_over_the_setting(self, tmp_path: Path) -> None:
        """`local` keeps EDGE_PORT beside it."""
        (tmp_path / ".env").write_text("EDGE_PORT=9090\n")
        assert (Site(tmp_path).port, Site(tmp_path).url) == (9090, "http://localhost:9090")
        other = Site(tmp_path, "http://localhost:8081")
        assert (other.port, other.url) == (8081, "http://localhost:8081")


class TestPortProblems:
    def test_name_ones_own_deploy_and_a_port_beside_it(self, tmp_path: Path) -> None:
        """The command, or the line that gives this environment its own."""
        with listening(tmp_path / ".slipway/local") as port:
            (tmp_path / ".env").write_text(f"EDGE_PORT={port}\n")
            [line] = Site(tmp_path).port_problems()
        assert line.startswith(
            f"EDGE_PORT: port {port} is taken by `local` of this project: `nox -s down -- local`, or give compose a"
            ' port of its own, `url = "http://localhost:'
        )
        assert line.endswith("` in [tool.slipway.environments.compose]")

    def test_name_another_projects_deploy(self, tmp_path: Path) -> None:
        """Its folder, the command there, and the next free port."""
        (tmp_path / "other").mkdir()
        with listening(tmp_path / "other/.slipway/local") as port:
            (tmp_path / ".env").write_text(f"EDGE_PORT={port}\n")
            [line] = Site(tmp_path).port_problems()
        assert f"is taken by `local` of {tmp_path / 'other'}: `nox -s down -- local` there, or set another" in line
        assert line.endswith(" is free")

    def test_name_the_place_of_the_port(self, tmp_path: Path, taken: int) -> None:
        """The table, where the address names it."""
        [line] = Site(tmp_path, f"http://localhost:{taken}").port_problems()
        assert line.startswith(f"pyproject.toml [tool.slipway.environments.compose]: url: port {taken} is taken by ")

    def test_point_to_init_where_nothing_names_the_port_yet(
        self, tmp_path: Path, taken: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It writes the next free one; an `.env` or the shell that names a port is its owner's."""
        site = Site(tmp_path)
        site.port = taken
        assert "or `nox -s init`, which writes the next free port, " in site.port_problems()[0]
        monkeypatch.setenv("EDGE_PORT", str(taken))
        assert "set another EDGE_PORT in the environment" in Site(tmp_path).port_problems()[0]
        monkeypatch.delenv("EDGE_PORT")
        (tmp_path / ".env").write_text(f"EDGE_PORT={taken}\n")
        assert "set another EDGE_PORT in .env" in Site(tmp_path).port_problems()[0]

    def test_are_none_where_it_is_free(self, tmp_path: Path) -> None:
        """Nobody is looked for."""
        (tmp_path / ".env").write_text(f"EDGE_PORT={free_port()}\n")
        assert Site(tmp_path).port_problems() == []
