"""One deploy at a time in an environment: a file lock of the kernel, with a note of who holds it.

`flock` ends with its holder, however that dies, so a lock is never stale; the note outlives a holder that was killed,
and the next one says whose lock it took over.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import LockHeld

__all__ = ["Holder", "held_by", "hold_lock"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The holder of a lock, and since when (RFC 3339)."""

    holder: str
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.holder} on {self.host} (pid {self.pid}) since {self.since}"


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path`. Raise `LockHeld` at once, naming the holder, where another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _acquire(path) as fd:
        note = os.pread(fd, 4096, 0)
        if note:
            log.warning(f"took over the lock of {_read(note) or 'somebody'}, who died without releasing it")
        us = Holder(_user(), socket.gethostname(), os.getpid(), datetime.now(UTC).isoformat(timespec="seconds"))
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(asdict(us)).encode(), 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: a process that waits sees that the path is another file


def held_by(path: Path) -> Holder | None:
    """Return the holder of the lock at `path`, None where it is free."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(os.pread(fd, 4096, 0))
    finally:
        os.close(fd)
    return None


@contextlib.contextmanager
def _acquire(path: Path) -> Iterator[int]:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except PermissionError:
            raise LockHeld(
                f"another user's deploy holds the lock {path}: wait for it. If none runs, root may remove the file"
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(os.pread(fd, 4096, 0))
            os.close(fd)
            raise LockHeld(
                f"another deploy holds the lock: {holder or 'it has just begun'}."
                " Wait for it, or stop it with Ctrl-C there: it undoes itself"
            ) from None
        if _same_file(fd, path):
            break
        os.close(fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False


def _read(note: bytes) -> Holder | None:
    with contextlib.suppress(ValueError, TypeError):
        return Holder(**json.loads(note))
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        return f"uid {os.getuid()}"
