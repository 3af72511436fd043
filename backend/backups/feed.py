"""What `pg_restore` reads: pipes by the names of a dump's files, into which each is decrypted when it is opened.

So nothing that was encrypted is on the disk again, and a restore needs no room for a second copy.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from backend.backups.crypt import CHUNK_BYTES, decrypt
from backend.backups.errors import BackupFailed
from backend.backups.verify import TOC, Checked, plain_name
from backend.backups.words import in_bytes

__all__ = ["fed"]

LOOK_SECONDS = 0.01
PROGRESS_SECONDS = 2.0


@asynccontextmanager
async def fed(checked: Checked, folder: Path, say: Callable[[str], None]) -> AsyncIterator[None]:
    """Let a program read the files of the backup in `folder` while the block runs, and say how far it is.

    Raise `BackupFailed` at its end where one could not be read.
    """
    feed = _Feed(checked, folder)
    thread = threading.Thread(target=feed.run)
    report = asyncio.create_task(_report(feed, checked.manifest.bytes, say))
    thread.start()
    try:
        yield
    except BackupFailed as error:
        if feed.failed:  # which is why the program has failed
            raise feed.failed from error
        raise
    finally:
        feed.ended.set()
        report.cancel()
        await asyncio.to_thread(thread.join)
    if feed.failed:
        raise feed.failed


async def _report(feed: _Feed, total: int, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(PROGRESS_SECONDS)
        done, seconds = feed.done, time.monotonic() - began
        if feed.waiting or feed.reading:
            say(f"restored {in_bytes(done)} of {in_bytes(total)}, {in_bytes(done / seconds)}/s")
        else:
            say(f"all rows are in, {seconds:.0f} s; indexes and constraints are being made")


class _Feed:
    """Pipes, each with a thread from the moment in which somebody opens it."""

    def __init__(self, checked: Checked, folder: Path) -> None:
        self._checked = checked
        self.waiting = {
            folder / plain_name(file.path): checked.path / file.path
            for file in checked.manifest.files
            if plain_name(file.path) != TOC
        }
        for pipe in self.waiting:
            os.mkfifo(pipe, 0o600)
        self.reading: list[threading.Thread] = []
        self.done = 0
        self.ended = threading.Event()
        self.failed: BackupFailed | None = None

    def run(self) -> None:
        """Feed each pipe that is opened, until the end."""
        while not self.ended.wait(LOOK_SECONDS):
            for pipe in [*self.waiting]:
                try:
                    descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # nobody has opened it yet
                        continue
                    self.failed = BackupFailed(f"{pipe.name}: cannot be passed on ({error.strerror})")
                    return
                os.set_blocking(descriptor, True)
                thread = threading.Thread(target=self._pass_on, args=(self.waiting.pop(pipe), descriptor))
                thread.start()
                self.reading.append(thread)
            self.reading = [thread for thread in self.reading if thread.is_alive()]
        for thread in self.reading:
            thread.join()

    def _pass_on(self, path: Path, descriptor: int) -> None:
        try:
            # Who reads may have ended: its own error tells.
            with suppress(BrokenPipeError), open(descriptor, "wb") as pipe, path.open("rb") as source:
                counting = _Counting(source, self)
                if self._checked.identity is None:
                    while data := counting.read(CHUNK_BYTES):
                        pipe.write(data)
                else:
                    decrypt(counting, pipe, self._checked.identity)
        except BackupFailed as error:
            self.failed = BackupFailed(f"{self._checked.manifest.name}: {path.name} {error}")
        except OSError as error:
            self.failed = BackupFailed(f"{self._checked.manifest.name}: {path.name} cannot be read ({error.strerror})")


class _Counting(io.BufferedIOBase):
    """A file for reading that tells its feed how much was read."""

    def __init__(self, file: Any, feed: _Feed) -> None:
        self._file, self._feed = file, feed

    def read(self, size: int | None = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._feed.done += len(data)
        return data
