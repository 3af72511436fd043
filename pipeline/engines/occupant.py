"""Who has a TCP port of this machine: a deploy of this template, a container, or another program; and what frees it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.engines.docker import Docker
from pipeline.errors import SlipwayError
from pipeline.system.place import STATE, USUAL, state_folder
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
    if home and holder:
        return _started_for(home, holder, root)
    # Docker's proxy does not tell whose port it is; Docker does.
    with contextlib.suppress(SlipwayError, OSError):  # it may not be installed
        for facts in Docker(root).publishing(port):
            folder = Path((facts["Config"].get("Labels") or {}).get(COMPOSE_FOLDER, "/nonexistent"))
            if (folder / USUAL).is_dir() or (folder / "docker/compose.rollout.yml").is_file():
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


def _started_for(home: Path, holder: psutil.Process, root: Path) -> Occupant:
    """Return the deploy into `home` that `holder` is a process of."""
    usual = home.parent.name == USUAL
    folder = home.parents[1] if usual else home.parent
    if not folder.exists():  # it was moved or removed: no command can be typed there
        return Occupant(f"`{home.name}` of {folder}, which is gone", f"`kill {_eldest(holder).pid}`")
    if usual or _same(folder, state_folder(root)):
        return _deployed(home.name, folder if usual else root, root)
    state = f"{STATE}={folder}"
    return Occupant(f"`{home.name}` of {state}", f"`nox -s down -- {home.name}` in its project, with {state}")


def _eldest(process: psutil.Process) -> psutil.Process:
    """Return the first process of a deploy that `process` descends from: the supervisor, which ends them all."""
    kin = [one for one in process.parents() if home_of(one) == home_of(process)]
    return kin[-1] if kin else process


def _same(one: Path, other: Path) -> bool:
    """Return whether two paths lead to one folder, by whatever link or mount."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _deployed(environment: str, folder: Path, root: Path) -> Occupant:
    ours, command = _same(folder, root), f"`nox -s down -- {environment}`"
    if ours:
        return Occupant(f"`{environment}` of this project", command, ours=True)
    return Occupant(f"`{environment}` of {folder}", f"{command} there")
