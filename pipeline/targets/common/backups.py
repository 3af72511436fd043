"""What the targets share about backups: the answer of the program."""

from __future__ import annotations

import json
from typing import Any

from pipeline.errors import UsageError
from pipeline.targets.common.diagnosis import telling_line
from pipeline.targets.common.program import failure

__all__ = ["MODULE", "answer_of"]

MODULE = "backend.backups"
BAD_USAGE = 2


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
