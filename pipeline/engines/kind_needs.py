"""What a kind cluster needs of this machine."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from pipeline.engines.docker import docker_problems
from pipeline.system.run import run

__all__ = ["cluster_problems", "inotify_hint"]

OLDEST_KIND = (0, 27)  # from here on nodes read certs.d: https://kind.sigs.k8s.io/docs/user/local-registry
ASK_SECONDS = 60
FEWEST_WATCHERS = 512  # https://kind.sigs.k8s.io/docs/user/known-issues/#pod-errors-due-to-too-many-open-files


def cluster_problems() -> list[str]:
    """Return what this machine lacks, one line each with its fix."""
    problems = docker_problems(compose=False)
    if shutil.which("kind") is None:
        problems.append("kind: not installed (or not on the PATH): https://kind.sigs.k8s.io/docs/user/quick-start")
    elif (version := _kind_version()) < OLDEST_KIND:
        problems.append(
            f"kind {'.'.join(map(str, version))} is too old, {'.'.join(map(str, OLDEST_KIND))} is needed:"
            " https://kind.sigs.k8s.io/docs/user/quick-start"
        )
    if shutil.which("kubectl") is None:
        problems.append("kubectl: not installed (or not on the PATH): https://kubernetes.io/docs/tasks/tools")
    return problems


def inotify_hint() -> str:
    """Return a hint where this machine allows few inotify instances, "" otherwise."""
    # With several nodes, a machine runs out of these first.
    path = Path("/proc/sys/fs/inotify/max_user_instances")
    if not path.exists() or (watchers := int(path.read_text(encoding="ascii"))) >= FEWEST_WATCHERS:
        return ""
    return (
        f"; this machine allows {watchers} inotify instances, kind advises {FEWEST_WATCHERS}:"
        f" `sudo sysctl fs.inotify.max_user_instances={FEWEST_WATCHERS}`"
    )


def _kind_version() -> tuple[int, int]:
    said = run(["kind", "version", "--quiet"], level=logging.DEBUG, timeout=ASK_SECONDS)
    found = re.search(r"(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
