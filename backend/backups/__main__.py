"""`python -m backend.backups VERB`: backs the database up, near it, as its owner; restores it beside what serves.

Progress is plain lines on standard error. The last line of standard output is one JSON object; where there is none, the
last line of standard error says why. Exit codes: 0 done, 1 not done, 2 bad usage or settings.

    backup          {"backup": SUMMARY, "removed": [NAME, …]}, and `problem` where it should be away and is not: then 1
    list            {"backups": [SUMMARY, …], "others": [PROJECT, …]}, the newest first, and `problem` where away does
                    not answer, or where the server is newer than pg_dump: then 1
    fetch NAME      {"fetched": SUMMARY}: one that is only away, brought here
    verify NAME     {"verified": {"name", "project", "schema", "revision", "bytes", "seconds"}}
    prune           {"removed": [NAME, …], "kept": [NAME, …]}
    restore NAME --into DATABASE
                    {"restored": {"name", "database", "snapshot", "schema", "revision", "migrated": [REVISION, …],
                    "rows", "bytes", "seconds"}}
    compare DATABASE
                    {"compared": {"database", "serving", "since", "lost", "tables": [{"name", "rows", "serving"}, …]}}
    swap OLD NEW    {"swapped": {"database", "before", "seconds", "sessions", "caches"}}
    drop DATABASE   {"dropped": DATABASE}; null where there is none of that name
    drill NAME      {"drilled": as "restored", and "age"}, in seconds
    schedule        makes a backup at each time of BACKUP_SCHEDULE, until SIGTERM
    check           prints nothing; 1 where the last backup of the schedule failed, or one is missing

A SUMMARY is a backup's manifest without its files, with `here` and `away`. NAME may be `newest`; one that is only away
is brought here first, where it is read. `schema` is how the backup's revision stands to this release: `same`, `older`,
`newer` (unknown here: not restored) or `none`.

`restore` makes DATABASE beside the one that serves, compares it with the manifest, and applies the migrations of this
release that it lacks (`migrated`). It drops those that an earlier `swap` put aside; what a restore that was killed has
left, it makes anew. `lost` is how many rows the serving database has more, `since` the backup.
`swap` gives the database NEW the name OLD, which serves: nobody is let in meanwhile, all refresh families are ended
(`sessions`), and the generations of all cached answers (`caches`; null where Redis did not answer, or is not set). The
old one is then called `before`, and `swap OLD BEFORE` undoes it. A failure and SIGTERM leave both as they were; after a
kill, the same `swap` again goes on, and answers as that one would have (`seconds` and `caches` are null where it was
done). `drop` drops what `restore` made or `swap` put aside, and nothing else. `drill` restores into the database that
the settings name, on a server that is thrown away, and makes the roles there.

For verify, restore and drill, one JSON object may come on standard input, which has to end: {"project": NAME} says that
a backup of that other project is meant.
Environment: the settings of the database as a migration gets them, those of Redis for `swap`, and those of
`backend.backups.settings`. On PATH: pg_dump and pg_restore, of the server's major or newer; rclone, for BACKUP_ADDRESS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from backend.backups.dump import back_up, server_problem
from backend.backups.errors import BackupFailed
from backend.backups.schedule import ended_last, overdue, serve
from backend.backups.server import Server
from backend.backups.settings import BackupSettings, load_backup_settings
from backend.backups.shelf import Shelf
from backend.backups.verify import Checked, check
from backend.beside import BAD_USAGE, FAILED, stoppable
from backend.exclusion import BackupEnded, MigrationRuns
from backend.settings import Settings, SettingsError, load_settings

__all__ = ["main"]

SCHEDULING = ("schedule", "check")
REPLACING = ("compare", "swap", "drop")
TERMINATION = Path("/dev/termination-log")  # of a container on Kubernetes: the pod's status has it
READING = ("verify", "restore", "drill")  # which may be told on standard input what is meant


def main(arguments: list[str] | None = None) -> int:
    """Carry out one verb. Return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.verb in SCHEDULING:
            return _schedule(given.verb, load_backup_settings())
        project = _project(given.verb)
        sections = ["database", "redis"] if given.verb == "swap" else ["database"]
        settings, own = load_settings(sections=sections), load_backup_settings()
        answer = asyncio.run(stoppable(_run(given, settings, own, project)))
    except (SettingsError, ValueError) as error:
        return _end(str(error), BAD_USAGE)
    except (BackupFailed, BackupEnded, MigrationRuns) as error:
        return _end(str(error), FAILED)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # OSError has TimeoutError
        return _end(f"the database: {' '.join(str(error).split()) or type(error).__name__}", FAILED)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return _end("it was stopped, and nothing is left of it", FAILED)
    sys.stdout.write(json.dumps(answer) + "\n")
    if given.verb == "backup":
        _leave(answer["backup"])
    return FAILED if "problem" in answer else 0


def _leave(made: Mapping[str, Any]) -> None:
    """Leave the time and the size of the backup `made` in the status of this pod, where this is one."""
    if TERMINATION.exists():
        TERMINATION.write_text(json.dumps({"backup": {"snapshot": made["snapshot"], "bytes": made["bytes"]}}))


def _schedule(verb: str, own: BackupSettings) -> int:
    """Make a backup whenever one is due; or say whether one is missing."""
    if verb == "schedule":
        serve(own.backup_folder, own.backup_schedule, _say)
    problem = overdue(own.backup_schedule, ended_last(own.backup_folder), datetime.now(UTC))
    return _end(problem, FAILED) if problem else 0


def _project(verb: str) -> str | None:
    """Return the other project whose backup is meant. Raise `ValueError` with what is wrong on standard input."""
    if verb not in READING or sys.stdin is None or sys.stdin.isatty():
        return None
    text = sys.stdin.read()
    try:
        given = json.loads(text or "{}")
        valid = isinstance(given, dict) and given.keys() <= {"project"}
    except ValueError:
        valid = False
    if not valid or not isinstance(given.get("project", ""), str):
        raise ValueError('standard input: must be one JSON object, {"project": NAME} or {}')
    named: str | None = given.get("project")
    return named


async def _run(
    given: argparse.Namespace, settings: Settings, own: BackupSettings, project: str | None
) -> dict[str, Any]:
    shelf, server = Shelf(own, project or settings.project_name, _say), Server(settings, own)
    if given.verb in READING:
        return await _read(given, server, shelf, project)
    if given.verb in REPLACING:
        return await _replace(given, server)
    if given.verb == "backup":
        return await shelf.put(await back_up(settings, own, await shelf.newest(), _say))
    if given.verb == "list":
        listed, problem = await shelf.everything(), await server_problem(settings)
        return {**listed, "problem": problem} if problem else listed
    return await shelf.prune() if given.verb == "prune" else {"fetched": await shelf.fetch(given.name)}


async def _replace(given: argparse.Namespace, server: Server) -> dict[str, Any]:
    """Carry out a verb that is about databases."""
    from backend.backups.restore import drop
    from backend.backups.swap import compare, swap

    if given.verb == "compare":
        return {"compared": await compare(server, given.database)}
    if given.verb == "swap":
        return {"swapped": await swap(server, given.old, given.new, _say)}
    return {"dropped": given.database if await drop(server, given.database) else None}


async def _read(given: argparse.Namespace, server: Server, shelf: Shelf, project: str | None) -> dict[str, Any]:
    """Carry out a verb that reads a backup."""
    from backend.backups.drill import drill
    from backend.backups.restore import restore

    began = time.monotonic()
    path = await shelf.find(given.name)
    needs_key = given.verb != "verify"
    checked = await check(server.settings, server.own, path, project=project, needs_key=needs_key, say=_say)
    if given.verb == "restore":
        return {"restored": await restore(server, checked, given.into, _say)}
    if given.verb == "drill":
        return {"drilled": await drill(server, checked, _say)}
    return {"verified": _verified(checked, time.monotonic() - began)}


def _verified(checked: Checked, seconds: float) -> dict[str, Any]:
    manifest = checked.manifest
    return {
        "name": manifest.name,
        "project": manifest.project,
        "schema": checked.schema,
        "revision": manifest.revision,
        "bytes": manifest.bytes,
        "seconds": round(seconds, 3),
    }


def _end(line: str, code: int) -> int:
    sys.stderr.write(f"{line}\n")
    return code


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.backups", description="Backs the database up.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("backup", help="make a backup, copy it off the host, remove what need not stay")
    verbs.add_parser("list", help="print the backups, the newest first")
    verbs.add_parser("prune", help="remove the backups that need not stay")
    for verb, text in (
        ("fetch", "bring a backup here that is off the host"),
        ("verify", "look whether a backup is whole"),
        ("restore", "restore a backup into a new database"),
        ("drill", "restore a backup on a server that is thrown away"),
    ):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("name", metavar="NAME", help="of the backup, or `newest`")
        if verb == "restore":
            one.add_argument("--into", required=True, metavar="DATABASE", help="the new database")
    compared = verbs.add_parser("compare", help="print the rows of a database beside those of the one that serves")
    dropped = verbs.add_parser("drop", help="drop a database that `restore` made, or `swap` put aside")
    for one in (compared, dropped):
        one.add_argument("database", metavar="DATABASE")
    swapped = verbs.add_parser("swap", help="let a restored database take the place of the one that serves")
    swapped.add_argument("old", metavar="OLD", help="the one that serves")
    swapped.add_argument("new", metavar="NEW", help="the restored one")
    verbs.add_parser("schedule", help="make a backup at each time of BACKUP_SCHEDULE, until SIGTERM")
    verbs.add_parser("check", help="end with 1 where the last backup of the schedule failed, or one is missing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
