"""Who has a port, in words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.engines.occupant import HOME, Occupant, home_of, occupant_of
from pipeline.system.ports import port_holder

SERVER = "import socket; s = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True); input()"


@contextmanager
def listening(home: Path) -> Iterator[int]:
    """The port of a process that a deploy into `home` started."""
    command, environ = [sys.executable, "-c", SERVER], {**os.environ, HOME: str(home)}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("\n")


def played_docker(folder: Path, **labels: str) -> None:
    """A `docker` on which one container publishes every port: a real engine would open one to this machine."""
    facts = {"Id": "f00d", "Name": "/shop-frontend-1", "Config": {"Labels": labels}}
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\ncase \"$*\" in\nps*) echo f00d;;\n*) echo '{json.dumps([facts])}';;\nesac\n")
    program.chmod(0o755)


class TestOccupantOf:
    def test_names_a_deploy_with_what_stops_it(self, tmp_path: Path) -> None:
        """One's own, and another project's in its folder."""
        for name in ("mine", "other"):
            (tmp_path / name / ".slipway/local").mkdir(parents=True)
        with listening(tmp_path / "mine/.slipway/local") as port:
            home = home_of(port_holder(port))
            mine, other = (occupant_of(port, tmp_path / root) for root in ("mine", "other"))
        assert home == tmp_path / "mine/.slipway/local"
        assert mine == Occupant("`local` of this project", "`nox -s down -- local`", ours=True)
        assert other == Occupant(f"`local` of {tmp_path / 'mine'}", "`nox -s down -- local` there")

    def test_names_a_deploy_whose_state_is_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By what it was given, which is ours or another one's."""
        with listening(tmp_path / "state/local") as port:
            (tmp_path / "state/local").mkdir(parents=True)
            other = occupant_of(port, tmp_path)
            monkeypatch.setenv("SLIPWAY_STATE", str(tmp_path / "state"))
            mine = occupant_of(port, tmp_path)
        state = f"SLIPWAY_STATE={tmp_path / 'state'}"
        assert other == Occupant(f"`local` of {state}", f"`nox -s down -- local` in its project, with {state}")
        assert mine == Occupant("`local` of this project", "`nox -s down -- local`", ours=True)

    def test_names_a_deploy_whose_folder_was_moved(self, tmp_path: Path) -> None:
        """No command can be typed there."""
        with listening(tmp_path / "gone/.slipway/local") as port:
            process = port_holder(port)
            assert process
            assert occupant_of(port, tmp_path) == Occupant(
                f"`local` of {tmp_path / 'gone'}, which is gone", f"`kill {process.pid}`"
            )

    def test_names_containers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of a project of this template, or of anybody; without Docker, the process alone."""
        (tmp_path / "shop/.slipway").mkdir(parents=True)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        label = "com.docker.compose.project.working_dir"
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            played_docker(tmp_path, **{label: str(tmp_path / "shop")})
            assert occupant_of(port, tmp_path / "shop").who == "`compose` of this project"
            assert occupant_of(port, tmp_path).frees == "`nox -s down -- compose` there"
            played_docker(tmp_path)
            assert occupant_of(port, tmp_path) == Occupant("container shop-frontend-1", "`docker stop shop-frontend-1`")
            (tmp_path / "docker").unlink()
            monkeypatch.setenv("PATH", str(tmp_path))
            assert f"(pid {os.getpid()})" in occupant_of(port, tmp_path).who
