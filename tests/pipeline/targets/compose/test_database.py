"""A program of a release beside the database of a compose environment: a one-off container."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.errors import ProgramFailed, SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.git import Source
from pipeline.system.run import CommandFailed
from pipeline.targets.compose.database import ComposeDatabase

RELEASE = Artifact("a", Source(None, dirty=False), None, ())


def database(do: Callable[..., str]) -> ComposeDatabase:
    """Return one whose stack runs a command by `do`."""
    site = SimpleNamespace(
        stack=SimpleNamespace(do=do),
        variables=SimpleNamespace(environment=lambda kept: {"MIGRATE_IMAGE": f"image of {kept}"}),
        artifacts=SimpleNamespace(find=lambda name: name),
    )
    return ComposeDatabase(cast("Any", site))


class TestCommand:
    def test_gives_what_may_be_secret_on_standard_input_alone(self) -> None:
        """A command line is in the list of processes, and in the engine's record of the container."""
        told: dict[str, Any] = {}

        def do(*words: str, **options: Any) -> str:
            told.update(options, words=words)
            return "{}\n"

        assert database(do).command(RELEASE, "backend.accounts", "add", stdin="a hash") == "{}\n"
        assert (told["given"], told["env"]) == ("a hash", {"MIGRATE_IMAGE": "image of a"})
        assert told["words"][:7] == ("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "migrate")
        assert "python -m backend.accounts add" in told["words"][-1]
        assert "a hash" not in " ".join(told["words"])

    def test_fails_with_the_words_of_the_program(self) -> None:
        """Not with those of Compose, which stand above them."""

        def do(*_: str, **__: Any) -> str:
            said = " Container shop-migrate-run-1  Creating\nanna: the name is taken\n"
            raise SlipwayError("docker compose run: taken") from CommandFailed(["docker"], 1, said)

        with pytest.raises(ProgramFailed) as failed:
            database(do).command(RELEASE, "backend.accounts", "add")
        assert failed.value.said == "anna: the name is taken"

    def test_says_that_it_took_too_long(self) -> None:
        """That is no failure of the program."""

        def do(*_: str, **__: Any) -> str:
            raise SlipwayError("docker did not end within 90 s")

        with pytest.raises(SlipwayError, match="did not end within 90 s") as failed:
            database(do).command(RELEASE, "backend.accounts", "add")
        assert not isinstance(failed.value, ProgramFailed)
