"""Who logs in to a database that a target runs itself: the service, and the owner of the tables, who migrates."""

from __future__ import annotations

import os
import re
import secrets as randomness
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.settings import OWNER_PASSWORD, SECRET_BYTES, read_env, split_secrets

__all__ = [
    "SERVICE_LOGIN",
    "Logins",
    "apart",
    "brought_over",
    "login_problems",
    "logins_of",
    "other_login",
    "owner_of",
    "owners_of",
]

# As backend/rights names them; `-other` is a second login of the owner, which earlier versions made.
SERVICE_LOGIN, OTHER = re.compile(r"-app-[12]$"), "-other"
LONGEST_OWNER = 55  # bytes: with the longest suffix, a name is as long as PostgreSQL's may be


@dataclass(frozen=True)
class Logins:
    """The `user` as which the service logs in, the `login` of the owner, and their passwords.

    `apart`: the service's is not the owner's.
    """

    user: str
    password: str
    login: str
    owner_password: str
    apart: bool

    @property
    def owner(self) -> str:
        """The role that owns the tables."""
        return owner_of(self.login)

    @property
    def monitor(self) -> str:
        """The login that sees the server's figures, and no row."""
        return f"{self.owner}-monitor"

    @property
    def other_login(self) -> str:
        """The login of the owner that nobody needs any more, if it is there."""
        return other_login(self.login)


def logins_of(values: Mapping[str, str], default: str) -> Logins:
    """Return who logs in according to `values`; `default` is the user where they name none."""
    plain, secrets = split_secrets(values)
    user, password = plain.get("POSTGRES_USER", default), secrets.get("POSTGRES_PASSWORD", "")
    login = plain.get("POSTGRES_OWNER", "")
    if login:
        return Logins(user, password, login, secrets.get("POSTGRES_OWNER_PASSWORD", ""), apart=True)
    return Logins(user, password, user, password, apart=False)


def other_login(login: str) -> str:
    """Return the one that takes turns with `login`: NAME-app-1 and NAME-app-2 do, else the owner and NAME-other."""
    owner = owner_of(login)
    if SERVICE_LOGIN.search(login):
        return f"{owner}-app-{3 - int(login[-1])}"
    return owner if login != owner else f"{owner}{OTHER}"


def login_problems(logins: Logins, database: str) -> list[str]:
    """Return a line, with its fix, where the service would log in as somebody whom nobody makes."""
    mine = [f"{logins.owner}-app-{number}" for number in (1, 2)]
    if not logins.apart or logins.user in mine:
        return []
    what = f"the database {database} belongs to the role {logins.owner}, and the service logs in as"
    return [f".env: POSTGRES_USER: {what} {' or '.join(mine)}: set one of them, with its POSTGRES_PASSWORD"]


def brought_over(root: Path, logins: Logins, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the lines of `.env` with which the service gets a login of its own, with a fresh password.

    The owner keeps its login and its password: what runs goes on with them. Empty where the service has one already, or
    where `.env` is not where its password comes from.
    """
    written, environ = read_env(root)[0], os.environ if environ is None else environ
    ours = bool(logins.password) and written.get("POSTGRES_PASSWORD") == logins.password
    named = (written.get("POSTGRES_USER") or logins.user) == logins.user and not environ.get("POSTGRES_USER")
    return apart(logins) if ours and named else {}


def apart(logins: Logins) -> dict[str, str]:
    """Return the variables with which the service has a login of its own; empty where it has, or cannot have one."""
    fits = len(logins.owner.encode()) <= LONGEST_OWNER
    if logins.apart or SERVICE_LOGIN.search(logins.user) or not (logins.password and fits):
        return {}
    return {
        "POSTGRES_OWNER": logins.login,
        "POSTGRES_OWNER_PASSWORD": logins.password,
        "POSTGRES_USER": f"{logins.owner}-app-1",
        "POSTGRES_PASSWORD": randomness.token_urlsafe(SECRET_BYTES),
    }


def owner_of(login: str) -> str:
    """Return the role that owns the tables of `login`: it is that itself, or one of those around it."""
    return SERVICE_LOGIN.sub("", login).removesuffix(OTHER)


def owners_of(user: str) -> dict[str, str]:
    """Return the lines of `.env` for the owner, where a service that runs logs in as `user`.

    Its password is with no replica: that of a new `.env` is as good, as `init --recover` and each deploy set it.
    """
    if SERVICE_LOGIN.search(user):
        return {"POSTGRES_OWNER": owner_of(user)}
    return {"POSTGRES_OWNER": "", OWNER_PASSWORD: ""}
