"""docs/11-add-a-target.md agrees with the protocol, and the fake target is written as the page says."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from pipeline.targets import Backups, Database, Fleet, Releases, Secrets, Upgrade, Watch
from tests.pipeline.deploy.fake_backups import FakeBackups
from tests.pipeline.deploy.fake_database import FakeDatabase
from tests.pipeline.deploy.fake_target import FakeFleet, FakeReleases, FakeSecrets, FakeWatch
from tests.pipeline.deploy.fake_upgrade import FakeUpgrade

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/11-add-a-target.md").read_text(encoding="utf-8")
FAKES = {
    Releases: FakeReleases,
    Database: FakeDatabase,
    Fleet: FakeFleet,
    Secrets: FakeSecrets,
    Watch: FakeWatch,
    Backups: FakeBackups,
    Upgrade: FakeUpgrade,
}


def methods(role: type) -> dict[str, bool]:
    """Return the methods of a role, each with whether it has a default: a body besides its docstring."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(role))).body
    assert isinstance(tree, ast.ClassDef)
    return {each.name: len(each.body) > 1 for each in tree.body if isinstance(each, ast.FunctionDef)}


def table(heading: str) -> dict[str, bool]:
    """Return the methods in the table below a heading of the page, each with whether a default is named."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {name: bool(default.strip()) for name, default in re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", section, re.M)}


@pytest.mark.parametrize("role", FAKES, ids=lambda role: role.__name__)
def test_the_page_lists_each_method_of_a_role(role: type) -> None:
    """They are in the protocol's order, and the page marks those that may be left out."""
    assert list(table(role.__name__).items()) == list(methods(role).items())


@pytest.mark.parametrize(("role", "fake"), FAKES.items(), ids=lambda role: role.__name__)
def test_the_fake_is_a_whole_target(role: type, fake: type) -> None:
    """Each method without a default is there, in the role's order."""
    needed = [name for name, default in methods(role).items() if not default]
    assert [name for name in vars(fake) if name in needed] == needed


@pytest.mark.parametrize("target", ["local", "compose", "kubernetes"])
def test_each_target_is_laid_out_as_the_page_says(target: str) -> None:
    """So a reader of one target finds the way in another."""
    files = re.findall(r"^\| `(\w+\.py)` \|", PAGE, re.M)
    assert files
    assert [name for name in files if not (ROOT / "pipeline/targets" / target / name).exists()] == []
