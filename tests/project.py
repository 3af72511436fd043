"""The service's entries in pyproject.toml.

Tests read its name here and never write it out, because `nox -s rename` changes no test.
"""

from __future__ import annotations

import math
from pathlib import Path

from pipeline.config.project import load_project

__all__ = ["NAME", "PROJECT", "deploy_minutes"]

PROJECT = load_project(Path(__file__).parents[1])
NAME = PROJECT.name


def deploy_minutes() -> int:
    """Return how many minutes a deploy to a shipped cluster may take, its undoing included, and ten to spare."""
    envs = [env for env in PROJECT.environments.values() if env.target == "kubernetes"]
    seconds = [env.migration_timeout + 2 * env.timeout + env.bake_limit + env.bake_seconds for env in envs]
    return math.ceil(max(seconds, default=0) / 60) + 10
