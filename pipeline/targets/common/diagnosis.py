"""One-line reasons why a replica is not ready, or why it ended."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

from pipeline.system.text import shorten

__all__ = ["FOLLOWED_LINES", "LOG_LINES", "RECENT_SECONDS", "SILENT", "failing_checks", "telling_line"]

RECENT_SECONDS = 3600  # what ended earlier, and has served since, is history
FOLLOWED_LINES = 10  # of a log, before what comes
LOG_LINES = 5000  # of a replica that goes: what it said in the last minute under the proof's traffic
SILENT = "its log shows no error"
# What follows an error: psql shows where in the statement it is, and PostgreSQL's log what it advises.
PLACE = re.compile(r"\s*\^|LINE \d+:|.*\b(?:HINT|DETAIL|CONTEXT|STATEMENT):  ")


def telling_line(lines: Iterable[str]) -> str:
    """Return the last telling line of a log's `lines`: an exception, or the event of a JSON line."""
    for line in reversed([line for line in lines if line.strip() and not PLACE.match(line)]):
        try:
            event = json.loads(line)
        except ValueError:
            return shorten(line.strip())
        if isinstance(event, dict) and event.get("level", "error") in ("error", "critical", "fatal"):
            return shorten(
                " ".join(str(event[key]) for key in ("event", "msg", "error", "exception") if event.get(key))
            )
    return SILENT


def failing_checks(body: str) -> str:
    """Return the failing checks in the `body` of `/ready`; the start of the body where it is not the service's own."""
    with contextlib.suppress(ValueError, LookupError, AttributeError, TypeError):
        checks: dict[str, Any] = json.loads(body)["checks"]
        failing = [
            f"{name} {check.get('detail') or check.get('state')}"
            for name, check in checks.items()
            if check.get("state") not in ("ok", "degraded")
        ]
        return ", ".join(failing) or body[:200]
    return body[:200]
