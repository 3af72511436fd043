"""Who has a TCP port of this machine: a deploy of this template, a container, or another program; and what frees it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.system.ports import describe_process, port_holder

__all__ = ["HOME", "Occupant", "home_of", "occupant_of"]

HOME = "SLIPWAY_HOME"  # in the environment of everything that a local deploy starts: the folder of its state
COMPOSE_FOLDER = "com.docker.compose.project.working_dir"


@dataclass(frozen=True)
class Occupant:
    """Who has a port, in words, and what `frees` it. `ours`: it is another environment of the same project."""

    who: str
    frees: str
    ours: bool = False


def occupant_of(port: int, root: Path) -> Occupant:
    """Return who has `port`, seen from the project at `root`."""
    holder = port_holder(port)
    home = home_of(holder)
    if home:
        return _deployed(home.name, home.parents[1], root)
    # Docker's proxy does not tell whose port it is; Docker does.
    with contextlib.suppress(SlipwayError, OSError):  # it may not be installed
        for facts in Docker(root).publishing(port):
            folder = Path((facts["Config"].get("Labels") or {}).get(COMPOSE_FOLDER, "/nonexistent"))
            if (folder / ".slipway").is_dir():
                return _deployed("compose", folder, root)
            name = facts["Name"].lstrip("/")
            return Occupant(f"container {name}", f"`docker stop {name}`")
    return Occupant(describe_process(holder), "stop that")


def home_of(process: psutil.Process | None) -> Path | None:
    """Return the folder (`.slipway/ENV` of a project) that `process` was started for; None if it was for none."""
    with contextlib.suppress(psutil.Error, OSError):
        if process is not None and (home := process.environ().get(HOME)):
            return Path(home)
    return None


def _deployed(environment: str, folder: Path, root: Path) -> Occupant:
    ours, command = folder.resolve() == root.resolve(), f"`nox -s down -- {environment}`"
    if ours:
        return Occupant(f"`{environment}` of this project", command, ours=True)
    return Occupant(f"`{environment}` of {folder}", f"{command} there")
