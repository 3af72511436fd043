"""The service's entries in pyproject.toml.

Tests read its name here and never write it out, because `nox -s rename` changes no test.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

from pipeline.config.project import load_project

__all__ = ["NAME", "PROJECT", "copied", "deploy_minutes", "run_pipeline"]

PROJECT = load_project(Path(__file__).parents[1])
NAME = PROJECT.name


def copied(folder: Path, *parts: str) -> Path:
    """Copy these `parts` of the project to `folder`, with the files that `nox -s settings` reads and writes."""
    for name in parts:
        shutil.copytree(PROJECT.root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".env.example", "docker-compose.yml"):
        shutil.copyfile(PROJECT.root / name, folder / name)
    return folder


def run_pipeline(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the pipeline in `root`; with `environ`, in that environment alone."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=root, check=False, capture_output=True, text=True, env=environ or None)


def deploy_minutes() -> int:
    """Return how many minutes a deploy to a shipped cluster may take, its undoing included, and ten to spare."""
    envs = [env for env in PROJECT.environments.values() if env.target == "kubernetes"]
    seconds = [env.migration_timeout + 2 * env.timeout + env.bake_limit + env.bake_seconds for env in envs]
    return math.ceil(max(seconds, default=0) / 60) + 10
