"""The accounts of people: what the command of the release that serves is told of them, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipeline.config.project import Environment
from pipeline.errors import ProgramFailed, SlipwayError
from pipeline.proof.report import Report
from pipeline.releases.model import Artifact, short
from pipeline.system.text import answer_in
from pipeline.targets import Target

__all__ = ["first_account", "list_accounts", "tell_accounts"]

MODULE = "backend.accounts"
LACKING = re.compile(r"No module named '?backend\.accounts\b")


def list_accounts(target: Target, release: Artifact) -> list[dict[str, Any]]:
    """Return the accounts: name, role, disabled, created_at and last_login_at of each. See `tell_accounts`."""
    found: list[dict[str, Any]] = tell_accounts(target, release, "list", {}, key="accounts")
    return found


def tell_accounts(target: Target, release: Artifact, verb: str, given: Mapping[str, Any], *, key: str = "done") -> Any:
    """Run a `verb` of the command of `release`, with what is `given` on its standard input; return its answer's `key`.

    Raise `SlipwayError` with its own line where it refuses, or with what to do where the release has no such command.
    """
    # Without the lock: an account is a row, as any request may write one, and to disable somebody must not wait for the
    # end of a deploy.
    try:
        said = target.database.command(release, MODULE, verb, stdin=json.dumps(given))
    except ProgramFailed as error:
        if LACKING.search(error.said):
            raise SlipwayError(
                f"release {short(release.name)} has no accounts yet: `nox -s deploy -- {target.env.name}` first"
            ) from error
        raise SlipwayError(error.said) from error
    answer = answer_in(said, key)
    if answer is None:
        raise SlipwayError(f"python -m {MODULE} printed `{said.strip()[-200:]}` instead of JSON with `{key}`")
    return answer


def first_account(env: Environment, target: Target, report: Report) -> str | None:
    """Return how to make the first account, in one line; None where there is one, or where that is not asked."""
    # A process or a container answers within a second or two. On a cluster it takes a Job, and a place on a node for
    # it: so it is asked there only after the first release.
    if report.verdict != "proved" or (env.target == "kubernetes" and report.previous):
        return None
    try:
        accounts = list_accounts(target, target.releases.recorded(report.release or ""))
    except (SlipwayError, OSError):  # a release without accounts, too; the deploy is done, and a line is not worth more
        return None
    if accounts:
        return None
    return f"nobody can sign in yet: `nox -s user -- add NAME --role admin --env {env.name}` makes the first account"
