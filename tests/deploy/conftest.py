"""Clones to deploy. A module shares one where its tests leave it as they found it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.checkout import ROOT, Checkout
from tests.deploy.machine import scratch_folders

MakeCheckout = Callable[..., Checkout]
AddRow = Callable[[str, str], None]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that tests filled, whichever process they ran in."""
    tables: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("passed", ()):
        for name, row in report.user_properties:
            tables.setdefault(name, []).append(str(row))
    for name, rows in tables.items():
        terminalreporter.section(name)
        for row in rows:
            terminalreporter.write_line(row)


@pytest.fixture
def add_row(record_property: Callable[[str, object], None]) -> AddRow:
    """Adds a line to a table that the end of the run prints."""
    return record_property


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone of this repository would hold, uncommitted work included, as it is when the tests start."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout  # fmt: skip
    folder = tmp_path_factory.mktemp("template")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


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
