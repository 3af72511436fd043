"""`python -m pipeline leaks`, a part of `nox -s lint`: git has no secret, and would take none."""

from __future__ import annotations

import logging
import os
import platform
import sys
from argparse import Namespace

from pipeline.commands import Verbs
from pipeline.config.project import Project
from pipeline.errors import SlipwayError
from pipeline.supply.kingfisher import is_there
from pipeline.supply.leaks import leak_problems
from pipeline.system.git import count_commits, git_problem, is_shallow, would_be_committed
from pipeline.system.place import state_folder
from pipeline.system.progress import Progress

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)


def add_parsers(verbs: Verbs) -> None:
    verbs.add("leaks", leaks, "look for secrets in what git has or would take").prog = "nox -s lint"


def leaks(project: Project, _: Namespace, __: Progress) -> None:
    """Look for secrets in the files and the commits of the repository; say so where that cannot be done here."""
    root = project.root
    if problem := git_problem(root):
        log.warning(f"no file and no commit was searched for secrets: {problem.what}")
        return
    if not is_there():
        unsearched = f"no file and no commit was searched for secrets: {_platform()} has no wheel of kingfisher-bin"
        if os.environ.get("CI") == "true":  # where nobody reads a warning
            raise SlipwayError(f"{unsearched}: run `nox -s lint` on Linux or macOS, on x86_64 or arm64")
        log.warning(f"{unsearched}; `nox -s lint` does so in CI")
        return
    if problems := leak_problems(root, state_folder(root) / "leaks", project.public):
        raise SlipwayError(*problems)
    commits = f"{count_commits(root)} commits"
    if is_shallow(root):
        log.warning(f"only {commits} were searched for secrets, the others are not here: `git fetch --unshallow`")
    log.info(f"no secret in git: {len(would_be_committed(root))} files, {commits}")


def _platform() -> str:
    return f"{sys.platform} on {platform.machine()}"
