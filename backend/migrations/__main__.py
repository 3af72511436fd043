"""`python -m backend.migrations VERB`: upgrade, current, plan, new."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from backend.migrations.plan import UnknownRevision, create, plan
from backend.migrations.runner import MigrationFailed, current_revision, upgrade
from backend.settings import SettingsError, load_settings

__all__ = ["main"]

FAILED = 1
BAD_USAGE = 2
NO_REVISION = "none"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb. The exit code: 0 done, 1 the database refused, 2 bad usage or settings."""
    given = _parser().parse_args(arguments)
    try:
        if given.verb == "plan":
            after = None if given.after == NO_REVISION else given.after
            _say(json.dumps([asdict(step) for step in plan(after, given.to)], indent=2))
        elif given.verb == "new":
            _say(str(create(given.message)))
        else:
            settings = load_settings(sections=["database"])
            if given.verb == "upgrade":
                asyncio.run(upgrade(settings, given.to, _say))
            else:
                _say(asyncio.run(current_revision(settings)) or NO_REVISION)
    except (SettingsError, UnknownRevision) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_USAGE
    except MigrationFailed as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.migrations", description="Migrates the database.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("upgrade", help="bring the database to the newest revision")
    up.add_argument("--to", metavar="REV", help="stop at this revision")
    verbs.add_parser("current", help="print the revision of the database, or `none`")
    planned = verbs.add_parser("plan", help="print the migrations and their SQL as JSON; needs no database")
    planned.add_argument("--from", dest="after", metavar="REV", default=NO_REVISION, help="those after REV")
    planned.add_argument("--to", metavar="REV", help="up to REV")
    new = verbs.add_parser("new", help="write an empty migration with the next number")
    new.add_argument("message")
    return parser


if __name__ == "__main__":
    sys.exit(main())
