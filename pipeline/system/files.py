"""Files that are written whole or not at all, and those that hold a secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError

__all__ = ["read_secret", "write_whole"]


def write_whole(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Make `text` the content of `path`, by default readable only by its owner; on a full disk the old one stays."""
    part = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        part.chmod(mode)  # whatever the umask
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_secret(name: str, values: Mapping[str, str]) -> str:
    """Return the text of the file that `values` have for the secret `name`; empty where they have none.

    Raise `UsageError` if it cannot be read.
    """
    try:
        path = values.get(f"{name}_FILE", "").strip()
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{name}_FILE: its file cannot be read ({reason}): fix the path, or the file's mode") from None
