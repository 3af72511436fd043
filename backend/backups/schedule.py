"""The schedule of backups where nothing else has one: a process that makes a backup whenever one is due.

It keeps what the last one ended with in BACKUP_FOLDER, so that a start anew repeats nothing and forgets nothing.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

__all__ = ["Ended", "Times", "ended_last", "next_time", "overdue", "serve"]

RECORD = "schedule.json"
TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
BACKUP = (sys.executable, "-m", "backend.backups", "backup")
RETRY = timedelta(minutes=15)  # after a failure: a network that was away is often back
LATE = timedelta(hours=1)  # from which on the health check says that a backup is missing
LOOK_SECONDS = 20.0  # for a clock that was set, and a machine that slept


@dataclass(frozen=True)
class Times:
    """Times of the day, in UTC, as minutes since midnight."""

    minutes: tuple[int, ...]

    @classmethod
    def read(cls, text: str) -> Times:
        """Return the times that `text` names, such as `03:00 15:00`. Raise `ValueError` where it names none."""
        found = [TIME.fullmatch(word) for word in text.split()]
        if not found or not all(found):
            raise ValueError("must be times of the day in UTC, such as `03:00` or `03:00 15:00`")
        return cls(tuple(sorted({int(one[1]) * 60 + int(one[2]) for one in found if one})))

    def __str__(self) -> str:
        """Return the times as text."""
        return " ".join(f"{minute // 60:02}:{minute % 60:02}" for minute in self.minutes)

    def after(self, moment: datetime) -> datetime:
        """Return the first of them after `moment`."""
        midnight = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        times = (midnight + timedelta(days=day, minutes=minute) for day in (0, 1) for minute in self.minutes)
        return next(time for time in times if time > moment)


@dataclass(frozen=True)
class Ended:
    """How the last backup of the schedule ended; `said`: why it failed, empty where it did not."""

    started: str
    code: int
    said: str


def ended_last(folder: Path) -> Ended | None:
    """Return how the last backup of the schedule in `folder` ended; None where none did, or the record is broken."""
    with suppress(OSError, ValueError, TypeError):
        ended = Ended(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
        datetime.fromisoformat(ended.started)
        return ended
    return None


def next_time(times: Times, last: Ended | None, now: datetime) -> datetime:
    """Return when the next backup is due, which may be past: a first one at once, after a failure soon again."""
    if last is None:
        return now
    started = datetime.fromisoformat(last.started)
    if started > now:  # by a clock that was wrong then
        return now
    return started + RETRY if last.code else times.after(started)


def overdue(times: Times, last: Ended | None, now: datetime) -> str | None:
    """Return what is wrong with the last backup of the schedule, None where nothing is."""
    if last is None:
        return None  # it is being made
    if last.code:
        return f"the backup of {last.started} failed: {last.said}"
    due = times.after(datetime.fromisoformat(last.started))
    if due + LATE < now:
        return f"the last backup began at {last.started}, and the next one was due at {due:%Y-%m-%dT%H:%MZ}"
    return None


def serve(folder: Path, times: Times, say: Callable[[str], None], command: Sequence[str] = BACKUP) -> NoReturn:
    """Run `command`, which makes a backup, whenever one is due. SIGTERM ends it, and what it began."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    said = ""
    while True:
        now = datetime.now(UTC)
        due = next_time(times, ended_last(folder), now)
        if due <= now:
            _record(folder, _run(command, now), say)
            continue
        if said != (line := f"the next backup is due at {due:%Y-%m-%d %H:%M} UTC"):
            said = line
            say(said)
        time.sleep(min(LOOK_SECONDS, (due - now).total_seconds()))


def _run(command: Sequence[str], now: datetime) -> Ended:
    """Run `command`; hand on what it says, of which the last line tells why it failed."""
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in process.stdout or ():
                sys.stderr.write(line)
                sys.stderr.flush()
                last = line.strip() or last
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    return Ended(now.isoformat(timespec="seconds"), code, _why(last, code) if code else "")


def _why(last: str, code: int) -> str:
    """Return why it failed, from its `last` line: words, or the object that says what is wrong with a whole backup."""
    with suppress(ValueError, TypeError, LookupError):
        return str(json.loads(last)["problem"])
    return last or f"exit code {code}"


def _record(folder: Path, ended: Ended, say: Callable[[str], None]) -> None:
    # Without the record one backup would follow the other, so on a full disk this waits.
    half = folder / f".{RECORD}"
    while True:
        try:
            half.write_text(json.dumps(asdict(ended)), encoding="utf-8")
            half.replace(folder / RECORD)
        except OSError as error:
            say(f"{folder} cannot be written to ({error.strerror}): make room, or fix its owner")
            time.sleep(LOOK_SECONDS)
        else:
            return
