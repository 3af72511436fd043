"""Copies of this repository, and what is done with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["IDENTITY", "commit", "files", "git", "run"]

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(root: Path, *arguments: str) -> str:
    """What a git command says in ROOT."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, *IDENTITY, "commit", "--quiet", "--message", "x")


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A verb of the pipeline in ROOT, without a terminal."""
    command, environment = [sys.executable, "-m", "pipeline", *arguments], {**os.environ, **environ}
    return subprocess.run(
        command, cwd=root, env=environment, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def files(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in git(root, "ls-files").splitlines()}
