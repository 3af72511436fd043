"""A folder that was moved while its service ran: everything in it was started with paths that are gone."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

import psutil

from pipeline.releases.records import read_json
from pipeline.targets.local.layout import Layout, make_layout
from pipeline.targets.local.supervision import is_marked, kill_strays

__all__ = ["ENGINES", "data_folder", "moved_from", "settle_here", "usual_home"]

log = logging.getLogger(__name__)

ENGINES = "engines.json"  # names the virtual environment of the engines that run, by its path when they were started
STOP_SECONDS = 90


def usual_home(home: Path) -> Path:
    """Return the path of the folder `home` by which what runs knows it: it may be reached by another mount, too."""
    venv = read_json(home / ENGINES).get("venv")
    with contextlib.suppress(OSError):
        if venv and Path(venv).parents[1].samefile(home):
            return Path(venv).parents[1]
    return home


def moved_from(layout: Layout) -> Path | None:
    """Return where `layout.home` was when its engines were started; None where it is there still, or none run."""
    venv = read_json(layout.home / ENGINES).get("venv")
    before = Path(venv).parents[1] if venv else layout.home
    return None if before == layout.home or before.exists() else before


def data_folder(layout: Layout) -> Path:
    """Return PostgreSQL's folder, which for root is named after the path of the project: before it was moved, too."""
    before = moved_from(layout)
    old = make_layout(before).postgres if before else layout.postgres
    return old if old.exists() and not layout.postgres.exists() else layout.postgres


def settle_here(layout: Layout) -> None:
    """Stop what still runs from where `layout.home` was before, and bring its data here; its next start is from here.

    Do nothing where it was not moved. Call it only under the environment's lock.
    """
    before = moved_from(layout)
    if before is None:
        return
    log.warning(f"this folder was {before.parents[1]}: what runs from there is stopped, and starts here with its data")
    found = [process for process in psutil.process_iter() if is_marked(process, before)]
    ids = {process.pid for process in found}
    for process in found:
        if process.ppid() not in ids:  # the supervisor, which drains the replicas and stops the stores after them
            process.terminate()
    psutil.wait_procs(found, timeout=STOP_SECONDS)
    kill_strays(before, None)
    data, old = data_folder(layout), make_layout(before)
    if data != layout.postgres:
        data.parent.rename(layout.postgres.parent)
    if old.run != before / "run":
        shutil.rmtree(old.run, ignore_errors=True)
    for path in [*layout.programs.glob("*"), *layout.run.glob("*"), layout.home / ENGINES]:
        path.unlink(missing_ok=True)
