"""The roles of a database that a target runs itself: their SQL, and a login of its own for the service."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from pipeline.config.logins import Logins, brought_over
from pipeline.config.settings import set_in_env
from pipeline.errors import SlipwayError
from pipeline.system.run import run

__all__ = ["PSQL", "Throwaway", "advice", "bring_env_over", "bring_over", "password_sql", "rights_sql"]

log = logging.getLogger(__name__)

SECONDS = 30
NAMES = ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_OWNER", "POSTGRES_OWNER_PASSWORD")
PSQL = ("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")


def rights_sql(root: Path, database: str, logins: Logins, *, fresh: bool = False) -> str:
    """Return the SQL that makes the roles of `logins` in `database`, each with its password.

    The owner's is set anew; a login of the service keeps the one that it has, unless its password is `fresh`.
    """
    given: dict[str, object] = {"login": logins.login, "database": database}
    if logins.apart:
        own = {logins.user: logins.password} if logins.password else {}
        owners = {logins.login: logins.owner_password} if logins.owner_password else {}
        given |= {"passwords": {**owners, **own}} if fresh else {"passwords": owners, "passwords_if_none": own}
        given["retired"] = [logins.other_login]
    return _sql(root, given)


def _sql(root: Path, given: Mapping[str, object]) -> str:
    command = [sys.executable, "-m", "backend.rights.sql"]
    return run(command, cwd=root, given=json.dumps(given), level=logging.DEBUG, timeout=SECONDS)


def password_sql(root: Path, database: str, logins: Logins, role: str, password: str | None) -> str:
    """Return the SQL that makes the roles of `logins`, and gives the login `role` a `password`, or takes its own."""
    return _sql(root, {"login": logins.login, "database": database, "passwords": {role: password}})


def bring_over(
    root: Path,
    database: str,
    logins: Logins,
    psql: Callable[[str], object],
    *,
    lines: Mapping[str, str],
    write: Callable[[Mapping[str, str]], object],
) -> bool:
    """Make the roles of `logins` and give them their rights; return whether others log in from now on.

    `psql` runs SQL as the superuser. Where the owner serves, `lines` has the variables with which the service has a
    login of its own: that is made first, then `write` puts them where they come from. Whatever fails, all goes on as
    before, and the log says what did.
    """
    wanted = logins
    if lines:
        user, password, login, owner_password = (lines[name] for name in NAMES)
        wanted = Logins(user, password, login, owner_password, apart=True)
    try:
        # A deploy that was killed here may have left the login with a password that nobody knows.
        psql(rights_sql(root, database, wanted, fresh=bool(lines)))
        if lines:
            write(lines)
    except SlipwayError as error:
        log.warning(f"the roles of database {database} were not made anew: {error.problems[0]}")
        return False
    if lines:
        log.info(f"the service logs in as {wanted.user} from now on, and {wanted.owner} migrates")
    return bool(lines)


def bring_env_over(root: Path, database: str, logins: Logins, psql: Callable[[str], object]) -> bool:
    """Do the same where `.env` says who logs in; return whether it was changed."""
    lines = brought_over(root, logins)
    return bring_over(root, database, logins, psql, lines=lines, write=partial(set_in_env, root))


def advice(root: Path, seen: Mapping[str, Any]) -> list[str]:
    """Return what to do where the service owns its tables, by what a replica has `seen`: a sentence, then the SQL.

    Empty where it does not, or where that is not known.
    """
    if not seen.get("owns"):
        return []
    owner, database = seen["owner"], seen["name"]
    first = (
        f"the service logs in as {seen['role']}, which owns its tables, so that a fault in it could drop them. As the"
        f" database's administrator, run the SQL below in {database}; give {owner}-app-1 a password, and let the"
        " service log in as that: in DATABASE_URL, beside MIGRATION_DATABASE_URL for the owner, or in POSTGRES_USER and"
        " POSTGRES_PASSWORD, beside POSTGRES_OWNER and POSTGRES_OWNER_PASSWORD"
    )
    try:
        return [first, *rights_sql(root, database, Logins(owner, "", owner, "", apart=False)).splitlines()]
    except SlipwayError as error:
        return [f"{first} (the SQL could not be made: {error.problems[0]})"]


@dataclass(frozen=True)
class Throwaway:
    """A `database` with the roles of the real one, on a throwaway server: for a rehearsal by the project at `root`."""

    root: Path
    owner: str
    database: str

    def make(self, psql: Callable[[str, str], object]) -> Logins:
        """Make the owner, the database and its roles; return who logs in. `psql` runs SQL in a database, as superuser.

        They may do there what they may do in the real one, so that a table without a right fails here.
        """
        passwords = [token_urlsafe(24) for _ in range(2)]
        logins = Logins(f"{self.owner}-app-1", passwords[0], self.owner, passwords[1], apart=True)
        owner, database = (f'"{name.replace(chr(34), chr(34) * 2)}"' for name in (self.owner, self.database))
        psql("postgres", f"CREATE ROLE {owner} LOGIN")
        psql("postgres", f"CREATE DATABASE {database} OWNER {owner}")
        psql(self.database, rights_sql(self.root, self.database, logins))
        return logins
