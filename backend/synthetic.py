"""`python -m backend.synthetic remove`: removes what the proof of a deploy wrote, where the API has no DELETE for it.

Ids come on standard input, one a line. With `--before TIME`, every synthetic row that is older goes, too: a proof that
was killed told nobody its ids. What is removed from which table is in `backend/domain.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import datetime

import asyncpg

from backend import domain
from backend.beside import BAD_USAGE, FAILED, transaction
from backend.settings import Settings, SettingsError, load_settings

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Remove, and print how many rows as JSON. Return the exit code: 0 done, 1 not done, 2 bad usage or settings."""
    given = _parser().parse_args(arguments)
    statements: Sequence[str] = getattr(domain, "REMOVE_SYNTHETIC", ())
    if not statements:
        sys.stderr.write("backend/domain.py has no REMOVE_SYNTHETIC: name the statements that remove synthetic rows\n")
        return BAD_USAGE
    ids = [line.strip() for line in sys.stdin if line.strip()]
    try:
        removed = asyncio.run(_remove(load_settings(sections=["database"]), statements, ids, given.before))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_USAGE
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # OSError has TimeoutError
        sys.stderr.write(f"synthetic rows were not removed: {str(error) or type(error).__name__}\n")
        return FAILED
    sys.stdout.write(json.dumps({"removed": removed}) + "\n")
    return 0


async def _remove(settings: Settings, statements: Sequence[str], ids: list[str], before: datetime | None) -> int:
    """Run `statements` in one transaction, and return how many rows they removed."""
    async with transaction(settings) as connection:
        # Its tag ends with the number: `DELETE 3`.
        tags = [await connection.execute(statement, ids, before) for statement in statements]
    return sum(int(tag.rpartition(" ")[2]) for tag in tags)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError("must name its time zone, as 2027-01-15T08:00:00+00:00 does")
    return time


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.synthetic", description="Removes what the proof wrote.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    remove = verbs.add_parser("remove", help="remove the synthetic rows with the ids on standard input")
    remove.add_argument("--before", metavar="TIME", type=_time, help="and every one that was made before TIME")
    return parser


if __name__ == "__main__":
    sys.exit(main())
