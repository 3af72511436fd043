"""An environment for each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.system.progress import LogDisplay
from tests.pipeline.deploy.world import World, world_in


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Nothing was deployed yet, and nobody else is told; whatever a test does, the lock is free when it is over."""
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RELEASE_BOARD_URL"):
        monkeypatch.delenv(name, raising=False)
    world = world_in(tmp_path)
    logger, display = logging.getLogger("pipeline"), LogDisplay(world.console)
    logger.addHandler(display)
    logger.setLevel(logging.INFO)
    yield world
    logger.removeHandler(display)
    logger.setLevel(logging.NOTSET)
    assert world.target.holder() is None
