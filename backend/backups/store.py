"""The folder of the backups: one folder for each, and what a run that was killed has left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from backend.backups.errors import BackupFailed
from backend.backups.manifest import MANIFEST, Manifest, read, time_of

__all__ = ["backups", "clear", "files", "find", "free_bytes", "part", "publish", "remove", "sync"]

PART = ".part-"  # begins the name of what is not whole


def backups(folder: Path) -> list[Manifest]:
    """Return the manifests of the whole backups in `folder`, the newest first. What is none is left out."""
    found = []
    for path in _folders(folder):
        with contextlib.suppress(BackupFailed):
            time_of(path.name)
            found.append(read(path))
    return sorted(found, key=lambda manifest: manifest.name, reverse=True)


def find(folder: Path, name: str) -> Path:
    """Return the folder of the backup `name`. Raise `BackupFailed` where there is none."""
    time_of(name)
    path = folder / name
    if not path.is_dir():
        raise BackupFailed(f"no backup {name} in {folder}: `list` shows what there is, `fetch` brings one back")
    return path


@contextlib.contextmanager
def part(folder: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Make a folder for what becomes `name`, and remove it at the end, unless it was published.

    Yield it and a descriptor of it: as long as any process has that, nobody else removes the folder.
    """
    path = folder / f"{PART}{name}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.mkdir(mode=0o700)
    except OSError as error:
        raise BackupFailed(f"BACKUP_FOLDER: {folder} cannot be written to ({error.strerror}): fix it") from None
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path, lock
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def publish(path: Path, name: str) -> Path:
    """Give the part at `path`, which is whole, its `name`; return where it is."""
    for file in path.rglob("*"):
        sync(file)
    sync(path)
    final = path.with_name(name)
    path.rename(final)
    sync(path.parent)
    return final


def clear(folder: Path) -> list[str]:
    """Remove the parts in `folder` on which nobody works any more; return their names."""
    removed = []
    for path in _folders(folder):
        if not path.name.startswith(PART):
            continue
        with contextlib.suppress(FileNotFoundError):  # its own run has removed it
            lock = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed.append(path.name)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)
    return removed


def remove(path: Path) -> None:
    """Remove the backup at `path`: first what makes it one."""
    (path / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)


def files(path: Path) -> set[str]:
    """Return the names of what is in the folder `path`."""
    return {file.name for file in path.iterdir()}


def free_bytes(folder: Path) -> int:
    """Return how much room there is where `folder` is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def sync(path: Path) -> None:
    """Wait until `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackupFailed(f"BACKUP_FOLDER: {folder} cannot be read ({error.strerror}): fix it") from None
