"""`python -m backend.migrations VERB`: upgrade, stop, status, current, plan, new."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from dataclasses import asdict
from functools import partial

from backend.beside import BAD_USAGE, FAILED, stoppable
from backend.logs import configure_logging
from backend.migrations.connection import MigrationFailed, stop
from backend.migrations.plan import UnknownRevision, UnsoundMigrations, create, plan
from backend.migrations.runner import LIMIT_SECONDS, NEVER, Wanted, current_revision, status, upgrade
from backend.settings import SettingsError, load_settings

__all__ = ["main"]

# Of a deploy, by variables: a release of an older template ignores them, where it would refuse an argument.
SECONDS = "MIGRATION_TIMEOUT_SECONDS"
REHEARSAL = "MIGRATION_REHEARSAL"
ON_SIGTERM = "MIGRATION_ON_SIGTERM"  # `finish`, or stop


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. Return the exit code: 0 done, 1 the database refused, 2 bad usage or settings."""
    given = _parser().parse_args(arguments)
    try:
        if given.verb == "plan":
            after = None if given.after == NEVER else given.after
            _say(json.dumps([asdict(step) for step in plan(after, given.to)], indent=2))
        elif given.verb == "new":
            _say(str(create(given.message)))
        else:
            settings = load_settings(sections=["database"])
            # Standard output is for who asked. What Alembic says below a warning is what `upgrade` says itself.
            configure_logging(settings, stream=sys.stderr, level="WARNING")
            if given.verb == "upgrade":
                asyncio.run(_stoppable(upgrade(settings, _wanted(given), _say)))
            elif given.verb == "stop":
                ended = asyncio.run(stop(settings))
                _say(f"ended {', '.join(f'pid {pid}' for pid in ended)}" if ended else "no migration runs")
            elif given.verb == "status":
                _say(json.dumps(asyncio.run(status(settings, _wanted(given)))))
            else:
                _say(asyncio.run(current_revision(settings)) or NEVER)
    except (SettingsError, UnknownRevision, UnsoundMigrations) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_USAGE
    except MigrationFailed as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    return 0


async def _stoppable(work: Awaitable[None]) -> None:
    """Do the `work`; SIGTERM cancels it, and with it the statement that runs in the database."""
    # Not on Kubernetes, where the kubelet sends it to a pod of a node that is drained: there is a grace period as long
    # as a migration may take, so it ends what it does.
    patient = os.environ.get(ON_SIGTERM) == "finish"
    await stoppable(work, partial(_say, "SIGTERM: the migrations end first") if patient else None)


def _wanted(given: argparse.Namespace) -> Wanted:
    return Wanted(
        to=given.to,
        expected=given.expect,
        kept=given.kept,
        trusted=given.trust,
        forgotten=given.forget,
        seconds=_seconds(),
        rehearsal=bool(os.environ.get(REHEARSAL)),
        cancel_backup=given.verb == "upgrade" and given.cancel_backup,
    )


def _seconds() -> float:
    """Return how long all migrations together may take."""
    said = os.environ.get(SECONDS, "")
    try:
        return float(said) if said else LIMIT_SECONDS
    except ValueError:
        raise SettingsError([f"{SECONDS}: `{said}` is no number of seconds; a deploy sets it"]) from None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.migrations", description="Migrates the database.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("upgrade", help="bring the database to the newest revision")
    up.add_argument("--cancel-backup", action="store_true", help="end a backup that runs, which keeps migrations out")
    verbs.add_parser("stop", help="end the migrations that run on the database, whoever began them")
    asked = verbs.add_parser("status", help="print what the database has and lacks as JSON; changes nothing")
    for verb in (up, asked):
        verb.add_argument("--to", metavar="REV", help="stop at this revision")
        verb.add_argument("--expect", metavar="REV", help="the database must be at REV, or `none`")
        verb.add_argument("--kept", metavar="REV", nargs="+", default=[], help="revisions of releases that are kept")
        verb.add_argument(
            "--trust", metavar="REV", nargs="+", default=[], help="revisions that were applied as they are here"
        )
        verb.add_argument("--forget", metavar="REV", help="forget the revision applied last; what it did stays")
    verbs.add_parser("current", help="print the revision of the database, or `none`")
    planned = verbs.add_parser("plan", help="print the migrations and their SQL as JSON; needs no database")
    planned.add_argument("--from", dest="after", metavar="REV", default=NEVER, help="only the migrations after REV")
    planned.add_argument("--to", metavar="REV", help="up to REV")
    new = verbs.add_parser("new", help="write an empty migration with the next number")
    new.add_argument("message")
    return parser


if __name__ == "__main__":
    sys.exit(main())
