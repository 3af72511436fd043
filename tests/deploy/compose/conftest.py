"""Clones to deploy with Docker; where no engine answers there is nothing to test, and the tests say so."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.compose.stack import ComposeCheckout
from tests.deploy.compose.watching import watched_clone
from tests.tools import need


@pytest.fixture(scope="session", autouse=True)
def _engine() -> None:
    need("docker compose")


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """A clone that nothing was deployed from yet; it is gone after the test."""
    one = ComposeCheckout.make(template, tmp_path / "clone")
    yield one
    one.remove(set())


@pytest.fixture
def own(template: Path, tmp_path: Path) -> Iterator[ComposeCheckout]:
    """The same, with the domain that the service itself has."""
    one = ComposeCheckout.make(template, tmp_path / "clone", own=True)
    yield one
    one.remove(set())


@pytest.fixture(scope="module")
def deployed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCheckout]:
    """A clone whose first release is proved and serves; the module's tests share it."""
    one = ComposeCheckout.make(template, tmp_path_factory.mktemp("compose") / "clone")
    one.proved()
    yield one
    one.remove(set())
    shutil.rmtree(one.root)


@pytest.fixture
def sound(deployed: ComposeCheckout) -> Iterator[ComposeCheckout]:
    """The module's clone, with the source of the release that serves before and after."""
    yield deployed
    deployed.restore()


@pytest.fixture(scope="module")
def watched(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCheckout]:
    """A clone with the profile `monitoring`: a release serves, a backup and a drill were made."""
    with watched_clone(template, tmp_path_factory.mktemp("watched")) as one:
        for verb in ("backup", "drill"):
            done = one.run(verb, "--json")
            assert done.code == 0, str(done)
        yield one
