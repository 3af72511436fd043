"""Clones to deploy, with the tests' notes as their domain. The tests of a module share one if it stays as it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import AddRow
from tests.deploy.checkout import Checkout
from tests.deploy.machine import scratch_folders

__all__ = ["AddRow", "MakeCheckout"]

MakeCheckout = Callable[..., Checkout]


@contextmanager
def _clones(template: Path, folder: Path) -> Iterator[MakeCheckout]:
    made: list[Checkout] = []
    scratch = scratch_folders()

    def make(name: str = "clone", *, own: bool = False, **numbers: int) -> Checkout:
        made.append(Checkout.make(template, folder / name, own=own, **numbers))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.remove(scratch)
            shutil.rmtree(one.root)


@pytest.fixture
def make_checkout(template: Path, tmp_path: Path) -> Iterator[MakeCheckout]:
    """Yield a function that makes clones without any deploy yet; they are removed after the test."""
    with _clones(template, tmp_path) as make:
        yield make


@pytest.fixture
def checkout(make_checkout: MakeCheckout) -> Checkout:
    """Return a clone without any deploy yet."""
    return make_checkout()


@pytest.fixture
def own(make_checkout: MakeCheckout) -> Checkout:
    """Return a clone without any deploy yet, with the domain that the service itself has."""
    return make_checkout(own=True)


@pytest.fixture(scope="module")
def deployed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """Yield a clone whose first release is proved and serves; the module's tests share it."""
    with _clones(template, tmp_path_factory.mktemp("e2e")) as make:
        one = make()
        one.proved()
        yield one


@pytest.fixture
def sound(deployed: Checkout) -> Iterator[Checkout]:
    """Yield the module's clone, with the source of the serving release before and after the test."""
    yield deployed
    deployed.restore()
