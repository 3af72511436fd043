"""Caddy's own reading of a Caddyfile."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import SlipwayError

__all__ = ["adapt"]


def adapt(caddy: Path, caddyfile: Path, environment: Mapping[str, str]) -> str:
    """Return what `caddyfile` says with the variables of `environment`, as JSON.

    Raise `SlipwayError` where Caddy does not accept it.
    """
    # `caddy run` ends without a word on a file that it cannot read.
    done = subprocess.run(
        [caddy, "adapt", "--config", caddyfile, "--adapter", "caddyfile", "--pretty", "--validate"],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        with contextlib.suppress(ValueError, KeyError, TypeError):
            reason = json.loads(reason)["msg"]  # most of its errors are records of a log
        raise SlipwayError(f"Caddy does not accept {caddyfile}: {reason}")
    return done.stdout
