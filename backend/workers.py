"""Several workers (BACKEND_WORKERS > 1): processes that share the same listeners, supervised by this one.

They are forked, so that imported modules are shared, and from a process without threads or a loop, where that is safe.

A worker's metrics are in files of its place, not of its process id: who replaces it goes on with its counters, so a
worker that is killed again and again leaves no files behind that fill the disk and are read at each scrape.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import multiprocess, values

from backend.logs import configure_logging
from backend.server import LEAVE_NOW, Listeners, run
from backend.settings import BAD_SETTINGS, Settings, SettingsError

__all__ = ["supervise"]

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
WATCHED = STOP | {signal.SIGCHLD}
YOUNG_SECONDS = 1.0


def supervise(settings: Settings, listeners: Listeners) -> int:
    """Keep BACKEND_WORKERS processes serving `listeners` until SIGTERM or SIGINT, then let them drain.

    Return the exit code. A worker that a signal killed (out of memory, a crash) is replaced; one that fails on its own
    would fail again. A second signal ends all of them at once.
    """
    # sigwait takes them one at a time: no handler can interrupt work in progress.
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    configure_logging(settings)
    flock = _Flock(settings, listeners)
    try:
        for place in range(settings.backend_workers):
            flock.start(place)
        while flock.born:
            number = signal.sigwait(WATCHED)
            if number == signal.SIGCHLD:
                flock.reap()
            elif flock.leaving:
                flock.send(signal.SIGKILL)
                return 128 + number
            else:
                hurried = number == signal.SIGINT and settings.environment == "development"
                flock.leave(LEAVE_NOW if hurried else signal.SIGTERM)
        return flock.exit_code
    finally:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


@dataclass
class _Flock:
    settings: Settings
    listeners: Listeners
    born: dict[int, tuple[int, float]] = field(default_factory=dict)  # process id → place, and monotonic seconds
    # Only the supervisor has its write end open: when that is killed, the workers read an end of file and leave.
    lifeline: tuple[int, int] = field(default_factory=os.pipe)
    leaving: bool = False
    exit_code: int = 0
    _log: Any = field(default_factory=lambda: structlog.get_logger("workers"))

    def start(self, place: int) -> None:
        """Start the worker of this `place`, where none may live."""
        process = os.fork()
        if process:
            self.born[process] = (place, time.monotonic())
            return
        code = 1
        try:
            values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
            # Ctrl-C reaches the whole group; only the supervisor responds to it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            os.close(self.lifeline[1])
            run(self.settings, self.listeners, lifeline=self.lifeline[0])
            code = 0
        except SettingsError as error:
            code = BAD_SETTINGS
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{error}\n")
        except Exception:  # noqa: BLE001 - any failure is logged and ends only this worker
            self._log.exception("worker failed")
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            os._exit(code)

    def reap(self) -> None:
        """Collect every worker that ended, and replace those that a signal killed."""
        for process in list(self.born):
            ended, status = os.waitpid(process, os.WNOHANG)
            if not ended:
                continue
            place, born = self.born.pop(process)
            age = time.monotonic() - born
            # The files of its live gauges go: what a dead worker held, nobody holds.
            multiprocess.mark_process_dead(place)  # type: ignore[no-untyped-call]
            if self.leaving:
                continue
            facts = {"worker": process, "code": os.waitstatus_to_exitcode(status), "seconds": round(age)}
            if os.WIFSIGNALED(status) and age > YOUNG_SECONDS:
                self._log.warning("worker killed; another one takes its place", **facts)
                self.start(place)
            else:
                self._log.error("worker failed; leaving", **facts)
                self.exit_code = BAD_SETTINGS if os.waitstatus_to_exitcode(status) == BAD_SETTINGS else 1
                self.leave(signal.SIGTERM)

    def leave(self, number: signal.Signals) -> None:
        self.leaving = True
        self.listeners.close()  # the workers' copies stay open while they drain; ours would queue clients in vain
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        for process in self.born:
            os.kill(process, number)
