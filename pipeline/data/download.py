"""The files of a backup, copied to this machine as they are stored, and checked there."""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.data.summaries import find_backup, list_backups
from pipeline.errors import SlipwayError, UsageError
from pipeline.system.progress import Progress
from pipeline.system.text import size
from pipeline.targets import Target

__all__ = ["download"]

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"


def download(target: Target, progress: Progress, reference: str, folder: Path) -> dict[str, Any]:
    """Copy the backup that `reference` means to `folder`, which must be new; return what was copied, and where.

    It stays encrypted, if it is: the key does not belong on each machine that a copy is made to. Raise `SlipwayError`
    where a file is not what the backup's manifest says.
    """
    with progress.stage("check") as stage:
        backup = find_backup(list_backups(target), reference, target.env.name)
        stage.note = backup.name
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--download {folder}: is there already: name a new folder")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with progress.stage("fetch") as stage:
        try:
            target.backups.fetch(backup.name, folder, lambda line: progress.live("fetch", line))
        except SlipwayError:
            with suppress(OSError):  # what was copied stays
                folder.rmdir()
            raise
        stage.note = f"{_checked(folder)} files, {size(backup.bytes)}"
    if backup.encrypted:
        log.info("its files are encrypted with age: docs/10-data.md says how to read them without this pipeline")
    return {"backup": backup.summary, "folder": str(folder)}


def _checked(folder: Path) -> int:
    """Return how many files the manifest in `folder` lists, each of which is as it says."""
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for one in files:
        path = folder / one["path"]
        if not path.is_file() or _sha256(path) != one["sha256"]:
            raise SlipwayError(f"{path} is not what the backup's {MANIFEST} says: fetch it once more, or use another")
    return len(files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
