"""Whose a Compose project is: the folders that containers were started from, compared as the file system does."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.engines.docker import Docker, run_docker
from pipeline.targets.common.container import Container
from pipeline.targets.compose.problems import ignored_files, taken_problems
from pipeline.targets.compose.stack import Stack
from tests.pipeline.targets.compose.test_stack import facts


@dataclass(frozen=True)
class Started(Stack):
    """A project whose containers were started from `folders`."""

    folders: tuple[Path, ...] = ()

    def containers(self, service: str | None = None) -> list[Container]:
        """Return one container for each folder."""
        del service
        found = []
        for folder in self.folders:
            of = facts()
            of["Config"]["Labels"]["com.docker.compose.project.working_dir"] = str(folder)
            found.append(Container.of(of))
        return found


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    return clone(tmp_path / "here")


def clone(folder: Path) -> Path:
    """Make a folder that has a compose file, and return it."""
    folder.mkdir()
    (folder / "docker-compose.yml").touch()
    return folder


def taken(root: Path, *folders: Path) -> list[str]:
    """Return what is said of a project of `root` whose containers were started from `folders`."""
    return taken_problems(Started(root, "shop", Docker(root), folders=folders), "compose")


class TestTakenProblems:
    def test_name_another_clone(self, root: Path, tmp_path: Path) -> None:
        """With what to do there, or here."""
        other = clone(tmp_path / "other")
        [line] = taken(root, root, other)
        what = f"a compose project `shop` runs from {other} already"
        assert line.startswith(f"{what}: run `nox -s down -- compose` there, or set another PROJECT_NAME in .env")
        assert "`docker compose --project-name shop down`" in line

    def test_are_none_for_this_folder_by_a_link(self, root: Path, tmp_path: Path) -> None:
        """One deploy through `current -> releases/N` would otherwise end every other one, `down` included."""
        link = tmp_path / "current"
        link.symlink_to(root)
        assert taken(root, link, root) == []
        assert taken(link, root) == []

    def test_are_none_for_a_folder_that_was_moved(self, root: Path, tmp_path: Path) -> None:
        """Nobody can type a command there."""
        assert taken(root, tmp_path / "gone") == []

    def test_are_none_for_what_docker_made_at_the_old_place(self, root: Path, tmp_path: Path) -> None:
        """A container that starts again makes the folders that it mounts something from."""
        (tmp_path / "gone/docker/postgres/init-scripts").mkdir(parents=True)
        assert taken(root, tmp_path / "gone") == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
    def test_name_a_folder_that_is_closed_to_us(self, root: Path, tmp_path: Path) -> None:
        """Somebody else's home: it is there."""
        other = clone(tmp_path / "closed")
        other.chmod(0)
        try:
            assert len(taken(root, other / "clone")) == 1
        finally:
            other.chmod(0o700)


def test_docker_is_told_the_real_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose takes its folder from PWD, and a shell in a link has the link there."""
    program = tmp_path / "docker"
    program.write_text(f"#!{sys.executable}\nimport os\nprint(os.environ['PWD'])\n")  # a shell would correct it
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PWD", "/a/link")
    assert run_docker("compose", "up", cwd=tmp_path) == f"{tmp_path}\n"


class TestIgnoredFiles:
    def test_names_what_compose_would_read_unasked(self, tmp_path: Path) -> None:
        """A deploy ships docker-compose.yml alone, and says so."""
        assert ignored_files(tmp_path) == []
        (tmp_path / "docker-compose.override.yml").touch()
        assert ignored_files(tmp_path) == [
            "docker-compose.override.yml is ignored: a deploy ships what docker-compose.yml says"
        ]
