"""`[tool.slipway.harmless]`: files whose change cannot break the pipeline, so that CI leaves out its own tests."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.config.tables import Table

__all__ = ["Harmless"]

# The pipeline, what tests it, and what decides what runs. Whoever lists these would leave out what they can break.
NEVER = (".github", "noxfile.py", "pipeline", "pyproject.toml", "requirements", "tests/deploy", "tests/pipeline",
         "tests/workflows")  # fmt: skip


def _is_below(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}/")


def _paths(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files and folders of a list as git writes them."""
    for one in given:
        path = PurePosixPath(one)
        name = str(path)
        if path.is_absolute() or ".." in path.parts or name == "." or set(one) & set("*?[\\"):
            raise ValueError(f"`{one}` is not a file or folder of the project, without wildcards, like `backend/notes`")
        if found := [place for place in NEVER if _is_below(name, place) or _is_below(place, name)]:
            raise ValueError(f"`{one}`: `{found[0]}` is the pipeline's, and a change of it can break everything")
    return tuple(str(PurePosixPath(one)) for one in given)


Paths = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_paths)]


class Harmless(Table):
    """`[tool.slipway.harmless]`: files and folders, by what a change of them can break at most."""

    domain: Paths = Field(default=(), examples=['["backend/notes"]'])  # the service's routes, tables, their tests
    page: Paths = Field(default=(), examples=['["docker/frontend"]'])  # the page and its tests
    docs: Paths = Field(default=(), examples=['["docs"]'])

    def kind(self, name: str) -> str | None:
        """Return the list that holds the file `name`, or a folder around it; None if none does."""
        lists = {"domain": self.domain, "page": self.page, "docs": self.docs}
        return next((kind for kind, paths in lists.items() if any(_is_below(name, path) for path in paths)), None)
