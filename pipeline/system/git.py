"""What git says of the working tree, and which of its files make a release."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SlipwayError

__all__ = [
    "BACKUP_LOCK",
    "LOCKS",
    "Change",
    "GitProblem",
    "Source",
    "changed_files",
    "changed_since",
    "common_commit",
    "content_hash",
    "count_commits",
    "git_problem",
    "has_commit",
    "is_older",
    "is_shallow",
    "last_change",
    "origin",
    "read_source",
    "remote_address",
    "shipped_files",
    "source_problems",
    "tracked_files",
    "would_be_committed",
]


# What a release installs, for its service and for its migrations.
LOCKS = {"backend": "requirements/backend.txt", "migrate": "requirements/migrate.txt"}
BACKUP_LOCK = "requirements/backup.txt"  # what its program of backups needs: installed where one is made


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


@dataclass(frozen=True)
class GitProblem:
    """Why git tells nothing of a folder.

    `in_the_way`: there is a repository, whose rules say what never ships. An unpacked archive has none, and may ship.
    """

    what: str
    in_the_way: bool


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


def would_be_committed(root: Path) -> list[str]:
    """Return the files of `root` that git tracks or does not ignore, as far as they are there; no links."""
    names = (_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or "").split("\0")
    paths = {name: root / name for name in names if name}  # in the middle of a merge, a name is there three times
    return [name for name, path in paths.items() if path.is_file() and not path.is_symlink()]


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


def is_shallow(root: Path) -> bool:
    """Return whether the clone at `root` lacks the beginning of its history, so that ancestors are not all known."""
    return _git(root, "rev-parse", "--is-shallow-repository") == "true\n"


def git_problem(root: Path) -> GitProblem | None:
    """Return why git tells nothing of `root`; None where it does."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--git-dir"],
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return GitProblem("git is not installed", in_the_way=False)
    if done.returncode == 0:
        return None
    if "dubious ownership" in done.stderr:
        own = f"git config --global --add safe.directory {shlex.quote(str(root))}"
        what = f"git refuses {root}, which belongs to another user (dubious ownership): `{own}`, or `chown` it"
        return GitProblem(what, in_the_way=True)
    if not (root / ".git").exists():
        return GitProblem(f"{root} is no git repository", in_the_way=False)
    words = (done.stderr.strip() or "it said nothing").splitlines()[0]
    return GitProblem(f"git cannot read {root / '.git'}: {words}", in_the_way=True)


def source_problems(root: Path, folders: Sequence[str]) -> list[str]:
    """Return why something in `folders` cannot be shipped, one line each: what each target would treat in its own way.

    An image has a link as it is, which leads nowhere there, and a folder of files has none of a submodule's.
    """
    inside = [os.path.realpath(root / folder) for folder in folders]
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *folders)
    names = listed.split("\0") if listed is not None else _found(root, folders, every=True)
    problems = []
    for name in filter(None, names):
        path, real = root / name, os.path.realpath(root / name)
        if path.is_symlink():
            here = any(os.path.commonpath((real, folder)) == folder for folder in inside)
            if not here or not path.is_file():
                what = f"{name} is a symbolic link to {path.readlink()}, which is no file in {', '.join(folders)}"
                problems.append(f"{what}: put the files themselves there")
        elif path.is_dir():
            what = f"{name.rstrip('/')} is a repository of its own (a submodule), which no release contains"
            problems.append(f"{what}: commit its files here (`git subtree`), or install it as a package")
    return problems


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
        names = _found(root, folders)
    if not names:
        raise SlipwayError(f"no file to ship in {', '.join(folders)}: nothing is there, or git ignores all of it")
    return sorted({*names, *(name for name in single if (root / name).is_file())})


def _found(root: Path, folders: Iterable[str], *, every: bool = False) -> list[str]:
    """Return the files in `folders` without git: all but caches and hidden files; `every`: links and folders, too."""
    paths = [path for folder in folders for path in ((root / folder), *(root / folder).rglob("*"))]
    known = [path for path in paths if path.is_symlink() or path.is_file()] if every else filter(Path.is_file, paths)
    names = [path.relative_to(root) for path in known]
    return [str(name) for name in names if not any(part.startswith((".", "__pycache__")) for part in name.parts)]


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
