"""Secrets taken back from the files that the replicas of `local` were started with."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from pipeline.config.secrets import delivered_secrets
from pipeline.config.settings import URLS
from pipeline.targets.local.supervision import is_marked

__all__ = ["recovered_from_processes"]


def recovered_from_processes(home: Path) -> dict[str, str]:
    """Return the secrets and the names of what runs for `home`, where the files of its secrets are still there."""
    found: dict[str, str] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            environment = process.environ() if is_marked(process, home) else {}
            names = [name for name in (*delivered_secrets(), *URLS) if f"{name}_FILE" in environment]
            files = {name: Path(environment[f"{name}_FILE"]) for name in names}
            texts = {name: path.read_text(encoding="utf-8").strip() for name, path in files.items() if path.exists()}
            plain = ("POSTGRES_DB", "POSTGRES_USER") if texts else ()
            found |= {name: text for name, text in texts.items() if text}
            found |= {name: environment[name] for name in plain if name in environment}
    return found
