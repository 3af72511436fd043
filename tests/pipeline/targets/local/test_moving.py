"""A project that was moved while its service ran."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.occupant import HOME
from pipeline.releases.records import write_json
from pipeline.targets.local.layout import Layout, make_layout
from pipeline.targets.local.moving import data_folder, moved_from, settle_here, usual_home
from tests.logs import logged

SLEEPER = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


@pytest.fixture(name="before")
def _before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project with engines, programs and data; as root, those are elsewhere."""
    monkeypatch.setattr("pipeline.targets.local.layout.ROOT_HOME", tmp_path / "of-root")
    monkeypatch.setattr("pipeline.targets.local.layout.postgres_user", lambda: "postgres")
    layout = make_layout(tmp_path / "old/.slipway/local")
    layout.make()
    layout.postgres.mkdir(parents=True)
    (layout.postgres / "PG_VERSION").write_text("18")
    (layout.programs / "replica-0.conf").touch()
    write_json(layout.home / "engines.json", {"venv": str(layout.venvs / "abc")})
    return layout


@pytest.fixture(name="running")
def _running(before: Layout) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was started for it."""
    with subprocess.Popen(SLEEPER, env={HOME: str(before.home)}, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def moved(before: Layout) -> Layout:
    """Move the project; return what it is then."""
    root = before.home.parents[1]
    root.rename(root.with_name("new"))
    return make_layout(root.with_name("new") / ".slipway/local")


class TestUsualHome:
    def test_is_the_path_that_what_runs_knows(self, before: Layout, tmp_path: Path) -> None:
        """By another mount of the folder (here: a link) every path in what runs would be another one."""
        (tmp_path / "mount").symlink_to(tmp_path / "old")
        assert usual_home(tmp_path / "mount/.slipway/local") == before.home
        assert usual_home(before.home) == before.home

    def test_is_the_path_itself_where_nothing_runs_or_it_was_moved(self, before: Layout, tmp_path: Path) -> None:
        """There is no other one."""
        assert usual_home(tmp_path / "never/.slipway/local") == tmp_path / "never/.slipway/local"
        after = moved(before)
        assert usual_home(after.home) == after.home


class TestMovedFrom:
    def test_is_nothing_where_it_was_not_moved(self, before: Layout, tmp_path: Path) -> None:
        """Nor where it never ran, nor for a copy, whose original is still there."""
        assert moved_from(before) is None
        assert moved_from(make_layout(tmp_path / "never/.slipway/local")) is None
        copy = tmp_path / "copy/.slipway/local"
        copy.mkdir(parents=True)
        (copy / "engines.json").write_bytes((before.home / "engines.json").read_bytes())
        assert moved_from(make_layout(copy)) is None

    def test_is_the_place_before(self, before: Layout) -> None:
        """Where its data is, is known by then."""
        after = moved(before)
        assert moved_from(after) == before.home
        assert data_folder(after) == before.postgres != after.postgres


class TestSettleHere:
    def test_ends_what_runs_from_there_and_brings_the_data(
        self, before: Layout, running: subprocess.Popen[bytes]
    ) -> None:
        """No path of it is there any more: what ended would not start again, and no command could be typed there."""
        after = moved(before)
        with logged() as lines:
            settle_here(after)
        running.wait(20)  # what it returned is known to whoever ended it
        assert (after.postgres / "PG_VERSION").read_text() == "18"
        assert not before.postgres.exists()
        assert list(after.programs.iterdir()) == []
        assert lines == [
            f"this folder was {before.home.parents[1]}: what runs from there is stopped, and starts here with its data"
        ]
        assert moved_from(after) is None

    def test_leaves_alone_what_was_not_moved(self, before: Layout, running: subprocess.Popen[bytes]) -> None:
        """It serves."""
        settle_here(before)
        assert running.poll() is None
        assert (before.postgres / "PG_VERSION").exists()
