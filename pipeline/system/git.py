"""What git says of the working tree, and which of its files make a release."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError

__all__ = [
    "LOCKS",
    "Change",
    "Source",
    "changed_files",
    "content_hash",
    "has_commit",
    "is_older",
    "last_change",
    "read_source",
    "remote_address",
    "shipped_files",
    "tracked_files",
]


# What a release installs, for its service and for its migrations.
LOCKS = {"backend": "requirements/backend.txt", "migrate": "requirements/migrate.txt"}


@dataclass(frozen=True)
class Source:
    """Where the working tree stands: the commit (None without git) and whether files differ from it."""

    commit: str | None
    dirty: bool


@dataclass(frozen=True)
class Change:
    """The last commit that changed some files: its time in seconds since the Unix epoch (0 without git), and whether
    the files differ from it.
    """

    commit: str | None
    epoch: int
    dirty: bool


def read_source(root: Path) -> Source:
    """The commit of ROOT and whether it is dirty; no commit where there is no git or no repository."""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        return Source(commit=None, dirty=False)
    return Source(commit=commit.strip(), dirty=bool(_git(root, "status", "--porcelain")))


def last_change(root: Path, names: Sequence[str]) -> Change:
    """The last commit of ROOT that changed the files or folders NAMES."""
    said = (_git(root, "log", "-1", "--format=%H %ct", "--", *names) or "").split()
    if not said:
        return Change(commit=None, epoch=0, dirty=False)
    return Change(said[0], int(said[1]), dirty=bool(_git(root, "status", "--porcelain", "--", *names)))


def tracked_files(root: Path) -> list[str] | None:
    """The files that git tracks in ROOT; None where there is no git, or ROOT is not the top of a repository."""
    if _git(root, "rev-parse", "--show-prefix") != "\n":
        return None
    return [name for name in (_git(root, "ls-files", "-z") or "").split("\0") if name]


def changed_files(root: Path) -> list[str]:
    """The files of ROOT that are not as they were committed, new ones included."""
    said = _git(root, "status", "--porcelain", "-z", "--no-renames") or ""
    return [line[3:] for line in said.split("\0") if line]


def has_commit(root: Path, commit: str) -> bool:
    """Whether ROOT's clone has COMMIT."""
    return _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def is_older(root: Path, commit: str, other: str) -> bool:
    """Whether COMMIT is an ancestor of OTHER, and not the same; ROOT's clone has both."""
    return commit != other and _git(root, "merge-base", "--is-ancestor", commit, other) is not None


def remote_address(root: Path) -> str | None:
    """Where the source lives for people, https and without credentials; None for a path or no remote."""
    said = (_git(root, "remote", "get-url", "origin") or "").strip()
    scheme = r"(?:https?://(?:[^@/]*@)?|ssh://[^@/]*@|[\w.-]+@)"
    found = re.fullmatch(rf"{scheme}([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?", said)
    return f"https://{found[1]}/{found[2]}" if found else None


def shipped_files(root: Path, folders: Iterable[str], single: Iterable[str]) -> list[str]:
    """The files of a release, relative to ROOT and sorted: FOLDERS as git tracks them or does not ignore them
    (without git: all but caches and hidden files), and the SINGLE files that exist.
    """
    folders = list(folders)
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders)
    if listed is not None:
        names = [name for name in listed.split("\0") if name and (root / name).is_file()]
    else:
        names = [
            str(path.relative_to(root))
            for folder in folders
            for path in (root / folder).rglob("*")
            if path.is_file()
            and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(root).parts)
        ]
    if not names:
        raise SlipwayError(
            f"no file to ship in {', '.join(folders)}: all of them are ignored by git, or they are empty"
        )
    return sorted({*names, *(name for name in single if (root / name).is_file())})


def content_hash(root: Path, names: Iterable[str], *more: str) -> str:
    """SHA-256 over the NAMES of files below ROOT, their content and whether they can be executed, and over MORE."""
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        digest.update(f"{name}\0{path.stat().st_mode & 0o100}\0".encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for text in more:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, errors="surrogateescape"
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
