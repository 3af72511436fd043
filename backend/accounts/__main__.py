"""`python -m backend.accounts VERB`: changes accounts, near the database.

One JSON object comes on standard input: `add` {"name", "role", "hash"}, `password` {"name", "hash"}, `disable`,
`enable` and `remove` {"name"}, `list` {}. A hash (argon2id, as a PHC string) is made by whoever asks: no password comes
here. `list` prints {"accounts": […]}, the others {"name", "done"}, as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg

from backend.accounts.passwords import HASH
from backend.accounts.schemas import NAME, Role
from backend.beside import BAD_USAGE, FAILED, transaction
from backend.identifiers import uuid7
from backend.settings import Settings, SettingsError, load_settings

__all__ = ["main"]

FIELDS = {
    "add": ("name", "role", "hash"),
    "list": (),
    "password": ("name", "hash"),
    "disable": ("name",),
    "enable": ("name",),
    "remove": ("name",),
}
RULES = {
    "name": (NAME, "must have 1 to 64 of a-z, 0-9, `.`, `_`, `@` and `-`, and begin with a letter or digit"),
    "role": (f"^({'|'.join(Role)})$", f"must be one of {', '.join(Role)}"),
    "hash": (HASH, "must be an argon2id hash as a PHC string, `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`"),
}
LIST = """
SELECT name, role, disabled_at IS NOT NULL AS disabled, created_at, last_login_at FROM accounts ORDER BY name
"""
# The account first, in a statement of its own, so that the sessions after it include those that began meanwhile.
ADD = "INSERT INTO accounts (id, name, role, password_hash) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id"
CHANGES = {
    "password": "UPDATE accounts SET password_hash = $2 WHERE name = $1 RETURNING id",
    "disable": "UPDATE accounts SET disabled_at = coalesce(disabled_at, now()) WHERE name = $1 RETURNING id",
    "enable": "UPDATE accounts SET disabled_at = NULL WHERE name = $1 RETURNING id",
    "remove": "DELETE FROM accounts WHERE name = $1 RETURNING id",
}
ENDS_SESSIONS = frozenset({"password", "disable"})
END_SESSIONS = "DELETE FROM account_sessions WHERE account_id = $1"


class NotDone(Exception):
    """The account is not as the verb needs it."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out one verb. Return the exit code: 0 done, 1 not done, 2 bad usage or settings."""
    verb = _parser().parse_args(arguments).verb
    try:
        given = _given(verb, sys.stdin.read())
        answer = asyncio.run(_run(load_settings(sections=["database"]), verb, given))
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_USAGE
    except NotDone as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except asyncpg.UndefinedTableError:
        sys.stderr.write("accounts: the database has no tables for accounts: deploy this release first\n")
        return FAILED
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # OSError has TimeoutError
        sys.stderr.write(f"accounts: the database: {' '.join(str(error).split()) or type(error).__name__}\n")
        return FAILED
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _given(verb: str, text: str) -> dict[str, str]:
    """Return the fields that `verb` takes from the JSON `text`. Raise `ValueError` with what is wrong."""
    fields = FIELDS[verb]
    try:
        given = json.loads(text or "{}")
    except ValueError:
        raise ValueError("standard input: must be one JSON object") from None
    if not isinstance(given, dict) or set(given) != set(fields):
        named = ", ".join(f'"{name}"' for name in fields)
        raise ValueError(f"standard input: `{verb}` takes one JSON object with {named or 'nothing in it'}")
    for name in fields:
        pattern, rule = RULES[name]
        if not isinstance(given[name], str) or not re.fullmatch(pattern, given[name]):
            raise ValueError(f"{name}: {rule}")
    return given


async def _run(settings: Settings, verb: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Carry out `verb` in one transaction and return what to print."""
    async with transaction(settings) as connection:
        if verb == "list":
            return {"accounts": [_listed(row) for row in await connection.fetch(LIST)]}
        await _change(connection, verb, given)
    return {"name": given["name"], "done": verb}


async def _change(connection: asyncpg.Connection[Any], verb: str, given: Mapping[str, str]) -> None:
    name = given["name"]
    if verb == "add":
        if await connection.fetchval(ADD, uuid7(), name, given["role"], given["hash"]) is None:
            raise NotDone(f"name: there is an account `{name}` already")
        return
    own = (given["hash"],) if "hash" in given else ()
    account = await connection.fetchval(CHANGES[verb], name, *own)
    if account is None:
        raise NotDone(f"name: there is no account `{name}`")
    if verb in ENDS_SESSIONS:
        await connection.execute(END_SESSIONS, account)


def _listed(row: asyncpg.Record) -> dict[str, Any]:
    times = {name: row[name].isoformat() if row[name] else None for name in ("created_at", "last_login_at")}
    return {"name": row["name"], "role": row["role"], "disabled": row["disabled"], **times}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend.accounts", description="Changes accounts.")
    parser.add_argument("verb", choices=FIELDS, metavar="VERB", help=f"one of {', '.join(FIELDS)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
