"""`nox -s backup`, `backups`, `restore`, `drill` and `upgrade-database`: an environment's data, kept and moved."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipeline.commands import JSON, Result, Verbs
from pipeline.commands.environments import Opener, open_environment
from pipeline.config.project import Project
from pipeline.data.backup import BackupStory
from pipeline.data.download import download
from pipeline.data.drill import DrillStory
from pipeline.data.report import DataReport
from pipeline.data.summaries import LATEST, Backup, read_backups
from pipeline.deploy.github import annotation
from pipeline.errors import UsageError
from pipeline.restore.replacing import Agree
from pipeline.restore.story import RestoreStory
from pipeline.restore.upgrade import UpgradeStory
from pipeline.system.progress import Progress, tame
from pipeline.system.text import duration, size
from pipeline.targets import open_target

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)

COLUMNS = ("name", "age", "size", "rows", "release", "revision", "encrypted", "where")
PLAIN = "no"  # not encrypted


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("backup", backup, "back the database up", env=True)
    parser.set_defaults(unwatched=True)
    parser.add_argument("--json", **JSON)
    verbs.add("backups", backups, "list the backups", env=True).add_argument("--json", **JSON)
    parser = verbs.add("drill", drill, "restore the newest backup where nobody is served, and try it", env=True)
    parser.set_defaults(unwatched=True)
    parser.add_argument("--json", **JSON)
    parser = verbs.add("restore", restore, "bring a backup back, prove it and let it serve", env=True)
    add = parser.add_argument
    add("--backup", metavar="REF", required=True, help=f"the name of a backup (or its beginning), or `{LATEST}`")
    where = parser.add_mutually_exclusive_group().add_argument
    where("--database", metavar="NAME", help="restore into a new database of that name, and let nobody use it")
    where("--download", metavar="PATH", type=Path, help="copy its files to a new folder here, and restore nothing")
    add("--yes", action="store_true", help="do not ask: what was written since the backup is gone")
    add("--json", **JSON)
    add = verbs.add("upgrade-database", upgrade, "move the data to a new major of PostgreSQL", env=True).add_argument
    add("--yes", action="store_true", help="do not ask: nobody writes while the data is copied")
    add("--json", **JSON)


def backup(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """Make a backup of the database."""
    env, target = open_environment(project, options, progress, opened)
    result = BackupStory(project, env, progress, target).tell()
    if result[0] == 0 and not options.json:
        log.info(target.backups.hint())
    return _end(*result, options, progress)


def drill(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """Try the newest backup."""
    env, target = open_environment(project, options, progress, opened)
    return _end(*DrillStory(project, env, progress, target).tell(), options, progress)


def restore(
    project: Project,
    options: Namespace,
    progress: Progress,
    *,
    opened: Opener = open_target,
    begin: type[RestoreStory] = RestoreStory,
) -> Result:
    """Bring a backup back: into what serves, into a database beside it, or as files. `begin` creates the story."""
    swaps = not (options.database or options.download)
    agree = (
        _agreeing(options, "a restore asks before it goes on", "what was written since the backup may go")
        if swaps
        else _ask
    )
    env, target = open_environment(project, options, progress, opened)
    if options.download:
        got = download(target, progress, options.backup, options.download)
        return 0, {"environment": env.name, **got} if options.json else None
    story = begin(project, env, progress, target)
    return _end(*story.tell(options.backup, agree=agree, beside=options.database), options, progress)


def upgrade(
    project: Project,
    options: Namespace,
    progress: Progress,
    *,
    opened: Opener = open_target,
    begin: type[UpgradeStory] = UpgradeStory,
) -> Result:
    """Move the data to the major of PostgreSQL that is defined now. `begin` creates the story."""
    agree = _agreeing(options, "an upgrade asks before nobody can write", "writes may get 503 while the data is copied")
    env, target = open_environment(project, options, progress, opened)
    code, report = begin(project, env, progress, target).tell(agree=agree)
    if report:
        return _end(code, report, options, progress)
    return code, {"environment": env.name, "verdict": "unchanged"} if options.json else None


def backups(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """List the backups, newest first."""
    env, target = open_environment(project, options, progress, opened)
    found, problem = read_backups(target)
    if problem:
        log.error(problem)
    if options.json:
        rows = [{**one.summary, "age_seconds": round(one.age)} for one in found]
        document = {"environment": env.name, "backups": rows, "max_age_seconds": env.kept.seconds, "problem": problem}
        return int(problem is not None), document
    if found:
        _print(found)
    elif not problem:
        Console(highlight=False).print(f"there is no backup yet: `nox -s backup -- {env.name}`", markup=False)
    return int(problem is not None), None


def _agreeing(options: Namespace, asks: str, then: str) -> Agree:
    """Return what answers when the story `asks`: a person, or `--yes`. Raise `UsageError` where nobody can."""
    if options.yes:
        return lambda _: True
    if not sys.stdin.isatty():
        raise UsageError(f"{asks}, and there is no terminal to answer at: add `--yes`, if {then}")
    return _ask


def _print(found: Sequence[Backup]) -> None:
    """Print a line for each; on a narrow terminal it is wrapped, and nothing of it is cut."""
    rows = [COLUMNS, *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            (f"{cell:<{width}}  ", "bold" if row is COLUMNS else "red" if cell == PLAIN else "")
            for cell, width in zip(row, widths, strict=True)
        ]
        text = Text.assemble(*cells)
        text.rstrip()
        Console(highlight=False).print(text, soft_wrap=True)


def _cells(one: Backup) -> tuple[str, ...]:
    figures = (duration(one.age), size(one.bytes), f"{one.rows:,}", one.release or "-", one.revision or "-")
    return (one.name, *figures, "yes" if one.encrypted else PLAIN, one.place)


def _ask(question: str) -> bool:
    """Ask at the terminal; only `yes` is one."""
    sys.stderr.write(f"{question} Type `yes`: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() == "yes"


def _end(code: int, report: DataReport, options: Namespace, progress: Progress) -> Result:
    """Say how a story ended."""
    progress.transcript.add(report.said)
    sys.stderr.write(annotation(f"{options.verb} {options.env}", report.said) if code else "")
    if not options.json:
        Console(highlight=False).print(f"\n{tame(report.said)}", soft_wrap=True, markup=False)
    return code, report.document() if options.json else None
