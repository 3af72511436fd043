"""Clones to deploy. A module shares one where its tests leave it as they found it."""

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

    def make(name: str = "clone", **options: int) -> Checkout:
        made.append(Checkout.make(template, folder / name, **options))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.remove(scratch)
            shutil.rmtree(one.root)


@pytest.fixture
def make_checkout(template: Path, tmp_path: Path) -> Iterator[MakeCheckout]:
    """Makes clones that nothing was deployed from yet; they are gone after the test."""
    with _clones(template, tmp_path) as make:
        yield make


@pytest.fixture
def checkout(make_checkout: MakeCheckout) -> Checkout:
    """One such clone."""
    return make_checkout()


@pytest.fixture(scope="module")
def deployed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone whose first release is proved and serves; the module's tests share it."""
    with _clones(template, tmp_path_factory.mktemp("e2e")) as make:
        one = make()
        one.proved()
        yield one


@pytest.fixture
def sound(deployed: Checkout) -> Iterator[Checkout]:
    """The module's clone, with the source of the release that serves before and after."""
    yield deployed
    deployed.restore()
