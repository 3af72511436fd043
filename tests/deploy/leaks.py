"""Where a secret must not be: command lines of processes, what runs printed, logs, reports, records."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager

import psutil

from tests.deploy.checkout import Checkout
from tests.deploy.threads import running

__all__ = ["Watched", "planted", "printed"]

PAUSE_SECONDS = 0.02


class Watched:
    """The command lines of all processes of this machine while a block runs."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self._over = threading.Event()

    def watching(self) -> AbstractContextManager[None]:
        """Look all the time."""
        return running(self._look, self._over)

    def _look(self) -> None:
        known: set[tuple[int, float]] = set()
        while not self._over.wait(PAUSE_SECONDS):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if (process.pid, process.create_time()) not in known:
                        self.lines.add(" ".join(process.cmdline()))
                        known.add((process.pid, process.create_time()))


def printed(one: Checkout) -> dict[str, str]:
    """Return the text of each file that a person may hand on: what runs printed, reports, logs, releases."""
    folders = [one.root.with_name(f"{one.root.name}-logs"), one.records, one.home / "logs", one.home / "artifacts"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_text(encoding="utf-8", errors="replace") for path in files}


def planted(values: Iterable[str], texts: dict[str, str], lines: Iterable[str] = ()) -> list[str]:
    """Return where one of `values` is: the names of `texts`, and the programs of command `lines`."""
    values = [value for value in values if value]
    found = [name for name, text in texts.items() if any(value in text for value in values)]
    return found + [line.split()[0] for line in lines if any(value in line for value in values)]
