"""The output of several commands as one sequence of lines: all that there is, or what comes from now on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import IO

__all__ = ["Stream", "follow", "lines_of"]

LOOK_SECONDS = 2.0  # until a new stream is found
WAIT_SECONDS = 0.2
MOST_LINES = 10_000  # that wait for a slow reader; then the commands wait, too


@dataclass(frozen=True)
class Stream:
    """Something that prints lines: its `name`, and the `command` that shows them."""

    name: str
    command: tuple[str, ...]


def lines_of(stream: Stream) -> Iterator[str]:
    """Yield each line that the command prints, on either stream, until it ends."""
    with _started(stream) as output:
        for line in output:
            yield line.rstrip("\n")


def follow(find: Callable[[], Sequence[Stream]]) -> Iterator[tuple[str, str]]:
    """Yield the name of a stream and a line of it, as they come, for ever.

    `find` lists the streams; it is asked again all the time, as replicas come and go.
    """
    lines: Queue[tuple[str, str]] = Queue(MOST_LINES)
    known: dict[Stream, Thread] = {}

    def read(stream: Stream) -> None:
        for line in lines_of(stream):
            lines.put((stream.name, line))

    looked = float("-inf")
    while True:
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            for stream in find():
                if stream not in known:
                    known[stream] = Thread(target=read, args=(stream,), daemon=True)
                    known[stream].start()
        try:
            yield lines.get(timeout=WAIT_SECONDS)
        except Empty:
            continue


@contextmanager
def _started(stream: Stream) -> Iterator[IO[str]]:
    # On its own standard error, a command may say why it shows nothing more: that belongs among the lines.
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(stream.command, text=True, errors="replace", **options) as process:  # type: ignore[call-overload]
        try:
            yield process.stdout
        finally:
            process.terminate()
