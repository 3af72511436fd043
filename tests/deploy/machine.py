"""What a deploy has on the machine: processes, files, ports. The kernel is asked, not the pipeline."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

from pipeline.system.ports import free_port

__all__ = ["free_port", "processes", "roster", "scratch_folders", "wait_until"]

T = TypeVar("T")

POLL_SECONDS = 0.005
KINDS = {"supervisord": "supervisord", "caddy": "edge", "postgres": "postgres", "valkey-server": "valkey"}


def wait_until(found: Callable[[], T | None], otherwise: str, seconds: float = 30) -> T:
    """Return the first true answer of `found`. Raise `AssertionError` with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"{otherwise} within {seconds} s"
        time.sleep(POLL_SECONDS)
    return answer


def processes(*folders: Path) -> list[psutil.Process]:
    """Return every process that concerns one of `folders`: by its working folder, command line or environment."""
    # Three ways, because servers write their title over the memory that `/proc/PID/environ` shows.
    found = psutil.process_iter(["name"])  # kept in its `info`, even if it ends meanwhile
    return [process for process in found if _concerns(process, [str(folder) for folder in folders])]


def roster(found: list[psutil.Process]) -> Counter[str]:
    """Count the processes by kind; PostgreSQL counts once, without the processes that it starts itself."""
    known = {process.pid: process for process in found}
    names: Counter[str] = Counter()
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = known.get(process.ppid())
            if parent is None or parent.name() != "postgres":
                names[_kind(process)] += 1
    return names


def scratch_folders() -> set[Path]:
    """Return the folders of throwaway servers that concern no living process, which somebody forgot."""
    places = {Path("/dev/shm"), Path(tempfile.gettempdir())}
    folders = {path for place in places if place.is_dir() for path in place.glob("slipway-throwaway-*")}
    return {path for path in folders if not processes(path)}


def _concerns(process: psutil.Process, folders: list[str]) -> bool:
    if process.pid == os.getpid():
        return False
    return any(_is_below(text, folder) for folder in folders for text in _texts(process))


def _is_below(text: str, folder: str) -> bool:
    return f"{text}/".startswith(f"{folder}/") or f"{folder}/" in text or text.endswith((f"={folder}", f":{folder}"))


def _texts(process: psutil.Process) -> Iterator[str]:
    with contextlib.suppress(psutil.Error, OSError):
        yield process.cwd()
    with contextlib.suppress(psutil.Error, OSError):
        yield from process.cmdline()
    with contextlib.suppress(psutil.Error, OSError):
        yield process.environ().get("SLIPWAY_HOME", "")


def _kind(process: psutil.Process) -> str:
    name, command = process.name(), process.cmdline()
    if command[-2:] == ["-m", "backend"]:
        return "replica"
    if any(part.endswith("/watchdog.py") for part in command):
        return "watchdog"
    programs = {Path(part).name for part in command[:2]} | {name}
    return next((kind for program, kind in KINDS.items() if program in programs), " ".join(command) or name)
