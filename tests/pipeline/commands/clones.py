"""Copies of this repository, and what is done with them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.__main__ import main

__all__ = ["IDENTITY", "commit", "files", "git", "run"]

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
# Python takes longer to import the pipeline than a verb takes: one process imports it, and each run is a fork of that.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pipeline.commands.rename", "pipeline.commands.setup"]
    + [f"pipeline.targets.{name}" for name in ("local", "compose", "kubernetes")]
)


def git(root: Path, *arguments: str) -> str:
    """What a git command says in ROOT."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, *IDENTITY, "commit", "--quiet", "--message", "x")


def run(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A verb of the pipeline in ROOT, in a process of its own, without a terminal."""
    with TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = FORKS.Process(target=_verb, args=(root, arguments, {**os.environ, **environ}, out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def _verb(root: Path, arguments: tuple[str, ...], environ: dict[str, str], out: Path, err: Path) -> None:
    """Run the verb, and end with its exit code."""
    for number, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(name, flags), number)
    os.chdir(root)
    sys.path.insert(0, str(root))  # for the settings of its backend
    os.environ.clear()
    os.environ.update(environ)
    sys.exit(main(list(arguments)))


def files(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in git(root, "ls-files").splitlines()}
