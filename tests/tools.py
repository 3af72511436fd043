"""What a test needs of its machine, and what becomes of the test where that is missing."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.engines.docker import docker_problems
from pipeline.engines.kind import cluster_problems

__all__ = ["BROWSERS", "missing", "need"]

BESIDE = Path(sys.executable).parent  # wheels that carry a program put it beside their Python
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Debian keeps this path from existing: a DOCKER_HOST in it says that there is to be no engine.
ON_PURPOSE = "unix:///nonexistent/"

ENGINES: Mapping[str, Callable[[], list[str]]] = {
    "docker": lambda: docker_problems(compose=False),
    "docker compose": lambda: docker_problems(compose=True),
    "kind": cluster_problems,
}


def need(*names: str) -> str:
    """The program that the test needs: its path, by the first of NAMES that is here; an engine has to answer, too.
    Where it is missing, see `missing`; without an engine on purpose (`ON_PURPOSE`) the test is skipped.
    """
    problems = ENGINES[names[0]]() if names[0] in ENGINES else []
    if problems and os.environ.get("DOCKER_HOST", "").startswith(ON_PURPOSE):
        pytest.skip(problems[0])
    if problems:
        missing(problems[0])
    programs = [name.partition(" ")[0] for name in names]
    found = [path for name in programs if (path := shutil.which(name, path=str(BESIDE)) or shutil.which(name))]
    if not found:
        missing(f"not on the PATH: {', '.join(programs)}")
    return found[0]


def missing(what: str) -> NoReturn:
    """End the test, as WHAT is not here: skipped on a laptop, failed with CI=true, where green means that it ran."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (a skip but for CI=true)", pytrace=False)
    pytest.skip(what)
