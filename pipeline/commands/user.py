"""`nox -s user`: the accounts of people, in the environment where the service runs."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.commands import JSON, Parser, Result, Verbs
from pipeline.commands.environments import Opener, open_environment
from pipeline.config.project import Project
from pipeline.deploy.accounts import list_accounts, tell_accounts
from pipeline.errors import SlipwayError
from pipeline.releases.model import Artifact
from pipeline.system.password import hash_password, read_password
from pipeline.system.progress import Progress
from pipeline.targets import Target, open_target

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)

ROLES = ("viewer", "deployer", "admin")
ENDING = "each session ends within JWT_EXPIRE_MINUTES"
ACTIONS = {  # verb → its help, what was done
    "add": ("make an account", "can sign in to {env} as {role}"),
    "password": ("give somebody a new password", f"has a new password on {{env}}: {ENDING}"),
    "disable": ("keep somebody from signing in", f"cannot sign in to {{env}} any more: {ENDING}"),
    "enable": ("let somebody sign in again", "can sign in to {env} again"),
    "remove": ("remove an account", f"has no account on {{env}} any more: {ENDING}"),
}
WITH_PASSWORD = ("add", "password")


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("user", user, "manage the accounts of people")
    actions = parser.add_subparsers(dest="action", required=True, metavar="VERB", parser_class=Parser)

    def add(name: str, text: str) -> Parser:
        one: Parser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        one.add_argument("--env", default="local", metavar="ENV", help="an environment of pyproject.toml")
        return one

    for name, (text, _) in ACTIONS.items():
        one = add(name, text)
        one.add_argument("name", metavar="NAME")
        if name == "add":
            meaning = f"what the account may do, by default as a {ROLES[0]}"
            one.add_argument("--role", default=ROLES[0], choices=ROLES, help=meaning)
    add("list", "list the accounts").add_argument("--json", **JSON)


def user(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """Manage the accounts of an environment by the command of the release that serves there."""
    _, target = open_environment(project, options, progress, opened)
    release = _serving(target)
    if options.action == "list":
        accounts = list_accounts(target, release)
        if options.json:
            return 0, {"accounts": accounts}
        _print_accounts(accounts, options.env)
        return None
    given = {name: vars(options)[name] for name in ("name", "role") if name in options}
    if options.action in WITH_PASSWORD:
        given["hash"] = hash_password(read_password(sys.stdin))
    tell_accounts(target, release, options.action, given)
    done = ACTIONS[options.action][1].format(**vars(options))
    Console(highlight=False).print(f"{options.name} {done}", soft_wrap=True, markup=False)
    return None


def _serving(target: Target) -> Artifact:
    """Return the release whose command is asked. Raise `SlipwayError` where none serves, or its database is down."""
    name, serving = target.env.name, target.records().serving()
    if serving is None:
        raise SlipwayError(f"nothing is deployed to {name} yet: `nox -s deploy -- {name}` first")
    release = target.releases.recorded(serving.release or "")
    if not target.database.runs(release):
        raise SlipwayError(f"the database of {name} does not run: `nox -s deploy -- {name}` starts it")
    return release


def _print_accounts(accounts: Sequence[Mapping[str, Any]], env: str) -> None:
    console = Console(highlight=False)
    if not accounts:
        command = f"`nox -s user -- add NAME --role {'|'.join(ROLES)} --env {env}`"
        console.print(f"there is no account on {env} yet: {command}", markup=False, soft_wrap=True)
        return
    table = Table("name", "role", "made (UTC)", "last sign-in (UTC)", "", box=None, pad_edge=False)
    for one in accounts:
        state = "[red]disabled[/]" if one["disabled"] else ""
        table.add_row(Text(one["name"]), one["role"], _when(one["created_at"]), _when(one["last_login_at"]), state)
    console.print(table)


def _when(time: str | None) -> str:
    """Return an RFC 3339 `time` to the minute, in UTC."""
    return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M}" if time else "never"
