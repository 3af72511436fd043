"""Secrets taken back from the files that the replicas of `local` were started with."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from pipeline.config.secrets import delivered_secrets
from pipeline.targets.local.supervision import is_marked

__all__ = ["recovered_from_processes"]


def recovered_from_processes(home: Path) -> dict[str, str]:
    """Return the secrets and the names of what runs for `home`, where the files of its secrets are still there."""
    found: dict[str, str] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ() if is_marked(process, home) else {}
            files = {
                name: Path(environment[f"{name}_FILE"]) for name in delivered_secrets() if f"{name}_FILE" in environment
            }
            texts = {name: path.read_text(encoding="utf-8").strip() for name, path in files.items() if path.exists()}
            names = ("POSTGRES_DB", "POSTGRES_USER") if texts else ()
            found |= {name: text for name, text in texts.items() if text}
            found |= {name: environment[name] for name in names if name in environment}
    return found
