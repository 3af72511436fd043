"""`nox -s logs`: what the service says, one line a record, from the engine's own logs."""

from __future__ import annotations

import heapq
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.commands import Result, Verbs
from pipeline.commands.environments import Opener, open_environment
from pipeline.config.project import Project
from pipeline.deploy.chapter import LOG
from pipeline.errors import SlipwayError
from pipeline.releases.model import short
from pipeline.releases.records import Records
from pipeline.system.progress import Progress
from pipeline.system.streams import Stream, follow, lines_of
from pipeline.targets import Target, open_target

__all__ = ["add_parsers"]

# In this order, and without their names; what else a record has follows as NAME=VALUE.
REQUEST = ("method", "path", "status")
SHOWN = (*REQUEST, "event", "level", "logger", "ms", "release", "replica", "timestamp")
STYLES = {"critical": "bold red", "error": "red", "warning": "yellow", "info": "green", "debug": "dim"}


def add_parsers(verbs: Verbs) -> None:
    add = verbs.add("logs", logs, "show what the service says", env=True).add_argument
    add("--release", metavar="R", help="only this release: its number or name")
    add("--request", metavar="ID", help="only the request with this id: X-Request-ID of its answer")
    add("--follow", action="store_true", help="show what comes, until Ctrl-C")
    add("--json", action="store_true", help="print each record as a line of JSON")


@dataclass(frozen=True)
class Line:
    """A line of a replica's log, and the `record` that it is, if any. `time`: RFC 3339; of the line before, if none."""

    replica: str
    text: str
    time: str
    record: Mapping[str, Any] | None

    @classmethod
    def of(cls, replica: str, text: str, before: str) -> Line:
        """Read `text`, which follows a line of the time `before`."""
        try:
            record = json.loads(text)
        except ValueError:
            record = None
        if not isinstance(record, dict):  # LOG_FORMAT=console, or what a library or a crash printed
            return cls(replica, text, before, None)
        return cls(replica, text, str(record.get("timestamp", before)), record)

    def has(self, key: str, value: str | None) -> bool:
        """Return whether the record has this `value`; a line that is none must mention it. None fits every line."""
        if value is None:
            return True
        return value in self.text if self.record is None else self.record.get(key) == value


def logs(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """Print what the replicas and workers have logged, oldest first, or with `--follow` what they log from now on.

    A release that failed and was undone is asked by name: its deploy kept what it said.
    """
    env, target = open_environment(project, options, progress, opened)
    records = target.records()
    release = records.find(options.release).release if options.release else None
    if options.follow:
        lines = _followed(target)
    else:
        streams = target.fleet.logs(follow=False)
        if release or options.request:
            streams += _kept(records, release)
        if not streams:
            raise SlipwayError(f"nothing runs in {env.name}: `nox -s deploy -- {env.name}` starts it")
        lines = heapq.merge(*map(_read, streams), key=lambda line: line.time)
    show = _print_json if options.json else _printer()
    for line in lines:
        if line.has("release", release) and line.has("request_id", options.request):
            show(line)
    return None


def _kept(records: Records, release: str | None) -> list[Stream]:
    """Return what shows the logs that deploys kept of releases that failed (of one `release`)."""
    paths = [(each.number, each.folder / LOG) for each in records.all() if release in (None, each.release)]
    return [Stream(f"deploy {number}", ("cat", str(path))) for number, path in paths if path.exists()]


def _read(stream: Stream) -> Iterator[Line]:
    time = ""
    for text in lines_of(stream):
        line = Line.of(stream.name, text, time)
        time = line.time
        yield line


def _followed(target: Target) -> Iterator[Line]:
    times: dict[str, str] = {}
    for name, text in follow(lambda: target.fleet.logs(follow=True)):
        line = Line.of(name, text, times.get(name, ""))
        times[name] = line.time
        yield line


def _print_json(line: Line) -> None:
    record = line.record if line.record is not None else {"event": line.text, "timestamp": line.time or None}
    sys.stdout.write(json.dumps({"replica": line.replica, **record}) + "\n")
    sys.stdout.flush()


def _printer() -> Callable[[Line], None]:
    console = Console(highlight=False, soft_wrap=True)

    def show(line: Line) -> None:
        console.print(_as_text(line), no_wrap=True, overflow="ignore", crop=False)

    return show


def _as_text(line: Line) -> Text:
    """Return a line for people: time (UTC), replica, level, what happened, and the rest as NAME=VALUE."""
    record = line.record
    if record is None:
        return Text(f"{line.replica}  {line.text}")
    level = str(record.get("level", ""))
    parts = [(_clock(line.time), "dim"), (line.replica, ""), (f"{level:<7}", STYLES.get(level, ""))]
    if record.get("event") == "request":
        parts += [(" ".join(str(record.get(name)) for name in REQUEST), "bold"), (f"{record.get('ms')} ms", "")]
    else:
        parts.append((str(record.get("event", "")), "bold"))
    rest = {name: value for name, value in record.items() if name not in SHOWN and value not in (None, "")}
    parts += [(f"{name}={_plain(value)}", "dim") for name, value in rest.items()]
    parts.append((short(str(record.get("release", ""))), "dim"))
    return Text.assemble(*((f"{text}  ", style) for text, style in parts[:-1]), parts[-1])


def _clock(time: str) -> str:
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%H:%M:%S.%f}"[:-3]
    except ValueError:
        return time


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
