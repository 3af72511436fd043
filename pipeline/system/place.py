"""Where the pipeline keeps its state and `.env`: in the project's folder, or where SLIPWAY_STATE says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import UsageError

__all__ = ["STATE", "USUAL", "env_file", "state_folder"]

STATE = "SLIPWAY_STATE"
USUAL = ".slipway"


def state_folder(root: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of all state of the project at `root`: `.slipway` in it, or SLIPWAY_STATE, which must be whole.

    Raise `UsageError` for a path that depends on where somebody is.
    """
    given = (os.environ if environ is None else environ).get(STATE, "").strip()
    if not given:
        return root / USUAL
    if not Path(given).is_absolute():
        raise UsageError(f"{STATE}: `{given}` is not an absolute path: for example {STATE}=/var/lib/{root.name}")
    return Path(os.path.realpath(given))


def env_file(root: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of `.env`: in the folder `root`, or with the rest of the state where that is elsewhere."""
    folder = state_folder(root, environ)
    return (root if folder == root / USUAL else folder) / ".env"
