"""The scripts of Jobs beside the service, run as those Jobs do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["starting"]


@contextmanager
def starting(script: str, file: Path) -> Iterator[Callable[[Mapping[str, Any]], subprocess.Popen[str]]]:
    """Yield what starts `script` with orders, which it reads in `file`; all that it started ends after the block."""
    running: list[subprocess.Popen[str]] = []

    def start(orders: Mapping[str, Any]) -> subprocess.Popen[str]:
        file.write_text(json.dumps(orders))
        running.append(
            subprocess.Popen([sys.executable, "-I", "-S", script, str(file)], text=True, stdout=subprocess.PIPE)
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()
