"""The files of a backup as `pg_restore` reads them: linked, or decrypted beside the backup while a restore lasts.

It takes neither pipes nor symbolic links: since PostgreSQL 17.12 they are "not a regular file".
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from backend.backups import store
from backend.backups.crypt import decrypt
from backend.backups.errors import BackupFailed
from backend.backups.manifest import StoredFile
from backend.backups.verify import TOC, Checked, plain_name, write_toc
from backend.backups.words import in_bytes

__all__ = ["write_plain"]

PROGRESS_SECONDS = 2.0
MODE = 0o600


def write_plain(checked: Checked, folder: Path, say: Callable[[str], None]) -> None:
    """Write the files of the backup `checked`, as they were before they were encrypted, to `folder`, and say how far.

    Raise `BackupFailed` where one cannot be read, or where there is no room.
    """
    manifest = checked.manifest
    _check_room(checked, folder)
    write_toc(checked.path, folder, checked.identity)
    done, began, last = 0, time.monotonic(), time.monotonic()
    for file in manifest.files:
        if plain_name(file.path) == TOC:
            continue
        try:
            _write(checked, file, folder / plain_name(file.path))
        except BackupFailed as error:
            raise BackupFailed(f"{manifest.name}: {file.path} {error}") from error
        except OSError as error:
            raise BackupFailed(f"{manifest.name}: {file.path} cannot be read ({error.strerror})") from error
        done += file.bytes
        if checked.identity and time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            say(f"decrypted {in_bytes(done)} of {in_bytes(manifest.bytes)}, {in_bytes(done / (last - began))}/s")


def _check_room(checked: Checked, folder: Path) -> None:
    free, needed = store.free_bytes(folder), checked.manifest.bytes
    if checked.identity and free < needed:
        raise BackupFailed(
            f"BACKUP_FOLDER: {in_bytes(free)} are free, and to decrypt {checked.manifest.name} takes"
            f" {in_bytes(needed)}: make room"
        )


def _write(checked: Checked, file: StoredFile, target: Path) -> None:
    source = checked.path / file.path
    if checked.identity:
        with source.open("rb") as reader, open(target, "xb", opener=_private) as writer:
            decrypt(reader, writer, checked.identity)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, MODE)
