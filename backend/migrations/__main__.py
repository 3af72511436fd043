"""`python -m backend.migrations VERB`: upgrade, status, current, plan, new."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from backend.migrations.plan import UnknownRevision, UnsoundMigrations, create, plan
from backend.migrations.runner import NEVER, MigrationFailed, Wanted, current_revision, status, upgrade
from backend.settings import SettingsError, load_settings

__all__ = ["main"]

FAILED = 1
BAD_USAGE = 2


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
            if given.verb == "upgrade":
                asyncio.run(upgrade(settings, _wanted(given), _say))
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


def _wanted(given: argparse.Namespace) -> Wanted:
    return Wanted(to=given.to, expected=given.expect, kept=given.kept, trusted=given.trust, forgotten=given.forget)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.migrations", description="Migrates the database.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("upgrade", help="bring the database to the newest revision")
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
