"""What the targets share about backups: what each verb of the program needs, its answer, the end of a drill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DeployFailed, UsageError
from pipeline.proof.smoke import smoke
from pipeline.releases.model import Artifact, short
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.program import failure

__all__ = ["CHANGING", "IDENTITY", "MODULE", "SUPERUSER", "Needs", "answer_of", "ask_on", "needs_of"]

MODULE = "backend.backups"
IDENTITY = "BACKUP_IDENTITY"
SUPERUSER = "postgres"  # as its image names it
BAD_USAGE = 2
# What goes on without a pipeline would be in the way of the next restore, which ends it.
CHANGING = frozenset({"restore", "compare", "swap", "drop"})


@dataclass(frozen=True)
class Needs:
    """What a verb gets beyond what makes a backup: the least that it needs.

    `superuser`: who may make and rename databases. `identity`: the key that decrypts. `redis`: the way to Redis.
    """

    superuser: bool = False
    identity: bool = False
    redis: bool = False


NEEDS = {
    "verify": Needs(identity=True),
    "restore": Needs(superuser=True, identity=True),
    "swap": Needs(superuser=True, redis=True),  # it ends what is cached of the other database
    "drop": Needs(superuser=True),
    "drill": Needs(identity=True),  # its superuser is that of the throwaway server
}


def needs_of(verb: str) -> Needs:
    """Return what a `verb` of the program needs."""
    return NEEDS.get(verb, Needs())


def ask_on(backup: str, serving: Artifact, base: str, token: str | None) -> int:
    """Send the requests of `serving` to the replica at `base`, which runs on a restored `backup`; return how many.

    Raise `DeployFailed` where one fails.
    """
    failures = smoke(serving.requests, base, token).failures
    if failures:
        first = failures[0]
        name = short(serving.name)
        raise DeployFailed(f"release {name} fails on {backup}: {first.method} {first.path}: {first.detail}")
    return len(serving.requests)


def answer_of(code: int, said: str, complaint: str) -> dict[str, Any]:
    """Return the object that the program printed last on its standard output, `said`; its exit code was `code`.

    `complaint` is its standard error, or both where they are not kept apart. Raise what
    `pipeline.targets.common.roles.Backups.run` raises.
    """
    answer = _last_object(said)
    if answer is not None and (code == 0 or "problem" in answer):
        return answer
    if code == BAD_USAGE:
        raise UsageError(telling_line(complaint.splitlines()))
    raise failure(MODULE, complaint or said)


def _last_object(said: str) -> dict[str, Any] | None:
    for line in reversed(said.splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict):
            return answer
    return None
