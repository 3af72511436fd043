"""A description of what changes between two release folders."""

from __future__ import annotations

import difflib
from pathlib import Path

from pipeline.releases.records import read_json
from pipeline.system.git import BACKUP_LOCK, LOCKS
from pipeline.targets.common.difference import setting_lines
from pipeline.targets.local.artifacts import META, Artifacts

__all__ = ["describe_difference"]


def describe_difference(artifacts: Artifacts, new: str, old: str) -> list[str]:
    """Return one line for each file, lock and setting in which release `new` differs from `old`."""
    if new == old:
        return []
    here, there = artifacts.folder(new), artifacts.folder(old)
    files, before = read_json(here / META).get("files", []), read_json(there / META).get("files", [])
    lines = []
    for name in sorted({*files, *before}):
        added, removed = _lines(here / name), _lines(there / name)
        if added == removed:
            continue
        count = [line[:1] for line in list(difflib.unified_diff(removed, added, n=0))[2:]]
        kind = "packages" if name in (*LOCKS.values(), BACKUP_LOCK) else "file"
        lines.append(f"{kind} {name}: +{count.count('+')} -{count.count('-')} lines")
    return lines + setting_lines(artifacts.config(new), artifacts.config(old))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
