"""The releases that are deployed before a test of a verb, and copies of this repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pipeline.commands.clones import commit, git
from tests.pipeline.deploy.world import World, release

ROOT = Path(__file__).parents[3]


@pytest.fixture
def served(world: World) -> World:
    """Return a world where aaaa was proved, then bbbb, which serves."""
    world.serve(release("aaaa"))
    world.target.fleet.replicas.clear()
    world.serve(release("bbbb"))
    return world


@pytest.fixture(name="template", scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold, uncommitted work included, committed."""
    root = tmp_path_factory.mktemp("template")
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    git(root, "init", "--quiet")
    commit(root)
    return root


@pytest.fixture(name="clone")
def _clone(template: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "--quiet", str(template), "clone")
    return tmp_path / "clone"


@pytest.fixture(name="kept", scope="module")
def _kept(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clone for every test that sees it refused: it stays as it was."""
    root = tmp_path_factory.mktemp("kept")
    git(root, "clone", "--quiet", str(template), ".")
    return root
