"""What several of the pipeline's tests share."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.settings import documented
from pipeline.registry.repository import digest_of
from pipeline.supply.kingfisher import scan_folder
from pipeline.system.audience import Transcript
from pipeline.system.progress import LogDisplay
from tests.pipeline.deploy.world import FIRST, World, release, world_in
from tests.registries import played, running_registry

SETTINGS = [variable.name for variable in documented()]


@pytest.fixture(autouse=True)
def _no_setting_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever tests may have some of them set, and what a test sets of them is its own."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def registry() -> Iterator[str]:
    """The address of a real registry: one for all tests of a worker, each with repositories of its own."""
    with running_registry() as address:
        yield address


@pytest.fixture(params=["kept by clients", "referrers API"])
def repository(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty repository: of CNCF distribution, and of a registry that lists what refers to an image by itself."""
    if request.param == "kept by clients":
        yield f"{request.getfixturevalue('registry')}/team/{digest_of(request.node.nodeid.encode())[7:19]}"
    else:
        with played() as registry:
            yield f"{registry.address}/team/board"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The rules of kingfisher as it compiles them, which takes it five seconds: once, for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    with (shared / "kingfisher.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder = shared / "kingfisher"
        if not folder.exists():
            scan_folder(tmp_path_factory.mktemp("empty"), folder)
    return folder


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Nothing was deployed yet, and nobody else is told; whatever a test does, the lock is free when it is over."""
    for name in ("GITHUB_ACTIONS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RELEASE_BOARD_URL"):
        monkeypatch.delenv(name, raising=False)
    world = world_in(tmp_path)
    logger, display = logging.getLogger("pipeline"), LogDisplay(world.console, Transcript())
    logger.addHandler(display)
    logger.setLevel(logging.INFO)
    yield world
    logger.removeHandler(display)
    logger.setLevel(logging.NOTSET)
    assert world.target.holder() is None


@pytest.fixture
def served(world: World) -> World:
    """Release a serves, migrated to 0001."""
    world.serve(release("a", "0001"), FIRST)
    return world
