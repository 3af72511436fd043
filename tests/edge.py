"""The edge's Caddyfile as Caddy reads it, and a real Caddy that runs it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.system.leash import held
from pipeline.targets.local.edge import Edge

CADDYFILE = Path(__file__).parents[1] / "docker" / "edge" / "Caddyfile"
CADDY = Path(sys.prefix) / "bin" / "caddy"


def adapted(home: Path, caddyfile: Path = CADDYFILE, **environ: str) -> dict[str, Any]:
    """Return a Caddyfile as JSON, if Caddy accepts it."""
    command = [str(CADDY), "adapt", "--config", str(caddyfile), "--adapter", "caddyfile", "--validate"]
    given = {"HOME": str(home), "PATH": os.environ["PATH"], **environ}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=given)
    config: dict[str, Any] = json.loads(done.stdout)
    return config


def handlers(config: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield every handler with that name, however deep."""
    (server,) = config["apps"]["http"]["servers"].values()
    waiting = list(server["routes"])
    while waiting:
        handle = waiting.pop(0)["handle"]
        waiting[:0] = [route for handler in handle for route in handler.get("routes", ())]
        yield from (handler for handler in handle if handler["handler"] == name)


def page_headers(home: Path) -> dict[str, str]:
    """Return the headers that each file of the page should have."""
    set_by_all = (each["response"]["set"] for each in handlers(adapted(home), "headers"))
    headers = next(each for each in set_by_all if "Strict-Transport-Security" not in each)  # that one is HTTPS' alone
    return {name: value for name, [value] in headers.items()}


@contextlib.contextmanager
def running(edge: Edge, tmp_path: Path) -> Iterator[None]:
    """Run Caddy with the edge's configuration, in the same folder and way as the supervisor does."""
    command = [str(CADDY), "run", "--config", str(edge.file)]
    env = {"HOME": str(tmp_path)}
    with held(command, log=tmp_path / "caddy.log", env=env, cwd=str(edge.layout.home)):
        edge.wait_up()
        yield
