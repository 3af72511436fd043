"""A program of a release beside the database of a local environment: a process."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import ProgramFailed
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from pipeline.targets.local.database import LocalDatabase

RELEASE = Artifact("a", Source(None, dirty=False), None, ())
# What a release has, and takes its database from.
PROGRAM = """
import os, sys
if sys.argv[1] == "fail":
    print("a line of a log", file=sys.stderr)
    sys.exit("anna: no such account")
print(sys.argv[1], sys.stdin.read(), os.environ["POSTGRES_DB"], os.environ["SERVICE_TOKEN"])
"""


@pytest.fixture(name="database")
def _database(tmp_path: Path) -> LocalDatabase:
    """One with a release that has the program `shop.accounts`."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "accounts.py").write_text(PROGRAM)
    site: Any = SimpleNamespace(
        artifacts=SimpleNamespace(python=lambda *_: Path(sys.executable), folder=lambda _: tmp_path),
        base_environment=lambda: {"SERVICE_TOKEN": "t"},
        database_environment=lambda: {"POSTGRES_DB": "shop"},
    )
    return LocalDatabase(cast("Any", site))


class TestCommand:
    def test_gives_and_takes(self, database: LocalDatabase) -> None:
        """Arguments, standard input, the place of the database and the secrets go in; the output comes back."""
        said = database.command(RELEASE, "shop.accounts", "list", stdin="{}")
        assert said == "list {} shop t\n"

    def test_fails_with_the_words_of_the_program(self, database: LocalDatabase) -> None:
        """The last ones."""
        with pytest.raises(ProgramFailed) as failed:
            database.command(RELEASE, "shop.accounts", "fail")
        assert failed.value.said == "anna: no such account"

    def test_says_that_a_release_lacks_the_program(self, database: LocalDatabase) -> None:
        """An older one; what `nox -s user` looks for."""
        with pytest.raises(ProgramFailed) as failed:
            database.command(RELEASE, "shop.nothing", "list")
        assert "No module named shop.nothing" in failed.value.said
