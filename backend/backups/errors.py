"""What goes wrong with a backup or a restore."""

from __future__ import annotations

__all__ = ["BackupFailed"]


class BackupFailed(Exception):
    """A backup or a restore that is not done. The message is one line: what is wrong, and what to do."""
