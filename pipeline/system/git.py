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
    "changed_since",
    "common_commit",
    "content_hash",
    "count_commits",
    "has_commit",
    "is_older",
    "last_change",
    "origin",
    "read_source",
    "remote_address",
    "shipped_files",
    "tracked_files",
]


# What a release installs, for its service and for its migrations.
LOCKS = {"backend": "requirements/backend.txt", "migrate": "requirements/migrate.txt"}


@dataclass(frozen=True)
class Source:
    """The state of the working tree: its commit (None without git) and whether files differ from it."""

    commit: str | None
    dirty: bool


@dataclass(frozen=True)
class Change:
    """The last commit that changed some files, and whether the files differ from it.

    `epoch` is the time of the commit in seconds since the Unix epoch (0 without git).
    """

    commit: str | None
    epoch: int
    dirty: bool


def read_source(root: Path) -> Source:
    """Return the commit of `root` and whether it is dirty; no commit if there is no git or no repository."""
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        return Source(commit=None, dirty=False)
    return Source(commit=commit.strip(), dirty=bool(_git(root, "status", "--porcelain")))


def last_change(root: Path, names: Sequence[str]) -> Change:
    """Return the last commit of `root` that changed the files or folders `names`."""
    fields = (_git(root, "log", "-1", "--format=%H %ct", "--", *names) or "").split()
    if not fields:
        return Change(commit=None, epoch=0, dirty=False)
    return Change(fields[0], int(fields[1]), dirty=bool(_git(root, "status", "--porcelain", "--", *names)))


def tracked_files(root: Path) -> list[str] | None:
    """Return the files that git tracks in `root`; None without git, or if `root` is not the top of a repository."""
    if _git(root, "rev-parse", "--show-prefix") != "\n":
        return None
    return [name for name in (_git(root, "ls-files", "-z") or "").split("\0") if name]


def changed_files(root: Path) -> list[str]:
    """Return the files of `root` that differ from the commit, new ones included."""
    lines = (_git(root, "status", "--porcelain", "-z", "--no-renames") or "").split("\0")
    return [line[3:] for line in lines if line]


def changed_since(root: Path, commit: str) -> list[str] | None:
    """Return the files of HEAD that differ from `commit`; None if the clone at `root` does not have that commit.

    A file that was moved is two: it is gone from one place and new in another.
    """
    if not has_commit(root, commit):
        return None
    # A comparison of two trees, whatever way led from one to the other; `diff-tree` heeds nobody's configuration.
    listed = _git(root, "diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, "HEAD")
    return None if listed is None else [name for name in listed.split("\0") if name]


def has_commit(root: Path, commit: str) -> bool:
    """Return whether the clone at `root` has `commit`."""
    return _git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def count_commits(root: Path) -> int:
    """Return the number of commits behind `root`, 0 if there is none."""
    return int(_git(root, "rev-list", "--count", "HEAD") or 0)


def common_commit(root: Path) -> str | None:
    """Return the newest commit that `root` shares with the main branch of `origin`; its own newest without one."""
    shared = _git(root, "merge-base", "HEAD", "origin/HEAD") or _git(root, "rev-parse", "--verify", "HEAD")
    return shared.strip() if shared else None


def is_older(root: Path, commit: str, other: str) -> bool:
    """Return whether `commit` is an ancestor of `other`, and not the same; the clone at `root` must have both."""
    return commit != other and _git(root, "merge-base", "--is-ancestor", commit, other) is not None


def remote_address(root: Path) -> str | None:
    """Return the https address of the remote `origin`, without credentials; None for a path or no remote."""
    address = (_git(root, "remote", "get-url", "origin") or "").strip()
    scheme = r"(?:https?://(?:[^@/]*@)?|ssh://[^@/]*@|[\w.-]+@)"
    match = re.fullmatch(rf"{scheme}([\w.-]+)(?::\d+)?[:/](.+?)(?:\.git)?/?", address)
    return f"https://{match[1]}/{match[2]}" if match else None


def origin(root: Path) -> str | None:
    """Return the address of the remote `origin` without credentials, which may be a path; None without that remote."""
    plain = (_git(root, "remote", "get-url", "origin") or "").strip()
    return remote_address(root) or (None if "@" in plain else plain.removesuffix(".git") or None)


def shipped_files(root: Path, folders: Iterable[str], single: Iterable[str]) -> list[str]:
    """Return the files of a release, relative to `root` and sorted: from `folders`, and the `single` ones that exist.

    From a folder come the files that git tracks or does not ignore; without git, all but caches and hidden files.
    Raise `SlipwayError` where there is none.
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
        raise SlipwayError(f"no file to ship in {', '.join(folders)}: nothing is there, or git ignores all of it")
    return sorted({*names, *(name for name in single if (root / name).is_file())})


def content_hash(root: Path, names: Iterable[str], *more: str) -> str:
    """Return the SHA-256 of the files `names` below `root` (name, content, whether executable) and of `more`."""
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
