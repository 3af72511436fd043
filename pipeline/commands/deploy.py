"""`nox -s deploy`, `nox -s rollback` and `nox -s watch`: the verbs that tell a story, or listen to its end."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Callable

from rich.console import Console

from pipeline.commands import JSON, Result, Verbs
from pipeline.commands.environments import Opener, open_environment
from pipeline.config.place_of_data import STORE_KEYS
from pipeline.config.project import Environment, Project
from pipeline.config.settings import PLACED, URLS, overridden, secret_names, variables
from pipeline.deploy.accounts import first_account
from pipeline.deploy.evidence import summary_line
from pipeline.deploy.github import annotation
from pipeline.deploy.listening import Listener
from pipeline.deploy.story import Story
from pipeline.errors import LockHeld, SlipwayError, UsageError
from pipeline.proof.report import Report
from pipeline.releases.model import short
from pipeline.releases.records import read_json
from pipeline.system.progress import Progress, tame
from pipeline.system.protection import deaf
from pipeline.system.waiting import attempts
from pipeline.targets import open_target

__all__ = ["add_parsers"]

log = logging.getLogger(__name__)

Begin = Callable[..., Story]
Hear = Callable[..., Listener]
UNDOING_SECONDS = 180  # a cancelled job on GitHub has 300


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("deploy", deploy, "ship the working tree, or a recorded release", env=True)
    parser.set_defaults(unwatched=True)
    add = parser.add_argument
    add("--dry-run", action="store_true", help="plan, build and check; change nothing that runs")
    # A release's name is lower case; an image's, made from GitHub's names, may be typed with capitals.
    add("--release", metavar="REF", type=str.lower, help="ship a recorded release (number or name) instead of building")
    add("--forward", action="store_true", help="refuse if a newer commit is running")
    add("--empty-database", action="store_true", help="start over if the data is gone")
    add("--forget-migration", metavar="NNNN", help="let an applied migration run again; what it did to the data stays")
    add("--cancel-backup", action="store_true", help="end a backup that runs, where migrations are pending")
    add("--no-watch", action="store_true", help="leave what `watch_minutes` asks for to `nox -s watch`")
    add("--json", **JSON)
    parser = verbs.add("rollback", rollback, "go back to a recorded release", env=True)
    parser.set_defaults(dry_run=False, forward=False, unwatched=True)
    add = parser.add_mutually_exclusive_group().add_argument
    add("--release", metavar="N", help="its number or name; the previous one by default")
    add("--unfinished", action="store_true", help="undo a deploy that was killed; do nothing if there is none")
    parser.add_argument("--json", **JSON)
    parser = verbs.add("watch", watch, "listen to a deploy that was proved, and go back where an alert fires", env=True)
    parser.set_defaults(unwatched=True)
    parser.add_argument("--release", metavar="N", help="do so only while it serves: the number or name of a release")
    parser.add_argument("--json", **JSON)


def deploy(
    project: Project, options: Namespace, progress: Progress, *, begin: Begin = Story, hear: Hear = Listener
) -> Result:
    """Ship the working tree, or the recorded release that `--release` names.

    `begin` creates the story, `hear` what listens afterwards.
    """
    env = project.environment(options.env)
    story = begin(
        project,
        env,
        progress,
        empty_database=options.empty_database,
        forgotten=options.forget_migration,
        cancel_backup=options.cancel_backup,
        heard_later=bool(env.watch_minutes),
    )
    code, report = _told(story, options, options.release)
    if env.watch_minutes and report.verdict == "proved":
        if options.no_watch:
            log.info(f"nobody watches it yet: `nox -s watch -- {env.name}`")
        else:
            record = story.records.find(str(report.number))
            return _listen(hear(project, env, story.target, progress, record, report, begin=begin), options)
    return code, report.document() if options.json else None


def watch(
    project: Project,
    options: Namespace,
    progress: Progress,
    *,
    begin: Begin = Story,
    hear: Hear = Listener,
    opened: Opener = open_target,
) -> Result:
    """Listen to the deploy that serves. `begin` creates the story of a rollback, `hear` what listens."""
    env, target = open_environment(project, options, progress, opened)
    if not env.watch_minutes:
        where = f"pyproject.toml [tool.slipway.environments.{env.name}]"
        raise UsageError(f"{where}: `watch_minutes` is not set, so there is nothing to do: for example 10")
    records = target.records()
    record = records.find(options.release) if options.release else records.serving()
    if record is None:
        raise UsageError(f"{env.name}: nothing was proved yet: `nox -s deploy -- {env.name}`")
    try:
        report = Report.load(read_json(record.folder / "report.json"))
    except ValueError:
        raise SlipwayError(f"deploy {record.number} has no report that this version can read: deploy again") from None
    return _listen(hear(project, env, target, progress, record, report, begin=begin), options)


def _listen(listener: Listener, options: Namespace) -> Result:
    code, report = listener.listen()
    said = report.watch.said if report.watch else ""
    line = summary_line(report) if code else f"Release {short(report.release)}: {said}"
    sys.stderr.write(annotation(f"{options.verb} {options.env}", line) if code else "")
    if not options.json:
        Console(highlight=False).print(tame(line), soft_wrap=True, markup=False)
    return code, report.document() if options.json else None


def rollback(project: Project, options: Namespace, progress: Progress, *, begin: Begin = Story) -> Result:
    """Ship a release that was proved before. `begin` creates the story."""
    env = project.environment(options.env)
    if options.unfinished:
        return _finish(lambda: begin(project, env, progress), env, options, progress)
    story = begin(project, env, progress)
    code, report = _told(story, options, options.release or str(story.records.previous().number))
    return code, report.document() if options.json else None


def _finish(begin: Callable[[], Story], env: Environment, options: Namespace, progress: Progress) -> Result:
    """Roll back to the last proved release after a deploy was killed; wait if that deploy is still undoing itself."""
    # Forget the stages of an attempt that did not get the lock: the report is about the attempt that does.
    for _ in attempts(UNDOING_SECONDS, every=1, watch=progress.stages.clear):
        story = begin()
        if not story.records.killed():
            log.info(f"{env.name}: no deploy is unfinished, so there is nothing to undo")
            return 0, {"environment": env.name, "unfinished": False} if options.json else None
        before = story.records.serving()
        if before is None:
            raise SlipwayError(
                f"{env.name}: a deploy is unfinished, and none was proved before it: `nox -s deploy -- {env.name}`"
            )
        try:
            code, report = _told(story, options, str(before.number))
            return code, report.document() if options.json else None
        except LockHeld as error:
            held = error
    raise held


def _overridden(story: Story, *, built: bool) -> list[str]:
    """Return a line for each setting of one person's shell that this deploy takes instead of that in `.env`.

    A release that is not `built` now has settings of its own; a cluster has its overlay's. Secrets reach both, unless
    the environment has a command for them. A store that would not be used is refused, so it wins nothing.
    """
    plain = {variable.name for variable in variables() if not variable.secret}
    refused = STORE_KEYS.keys() - {f"{name}{end}" for name in URLS for end in ("", "_FILE")}
    unused = plain if story.env.target == "kubernetes" else refused if built else refused | plain - PLACED
    if story.env.secrets:
        unused |= {f"{name}{end}" for name in secret_names() for end in ("", "_FILE")}
    return [line for name, line in overridden(story.project.root).items() if name not in unused]


def _told(story: Story, options: Namespace, reference: str | None) -> tuple[int, Report]:
    """Tell `story`, and say what came of it; return the exit code and the report."""
    for line in _overridden(story, built=reference is None):
        log.warning(line)
    try:
        code, report = story.tell(reference=reference, dry_run=options.dry_run, forward=options.forward)
    except SlipwayError as error:  # nothing was started, so there is no report
        sys.stderr.write(annotation(f"{options.verb} {options.env}", str(error)))
        raise
    line = summary_line(report)
    story.progress.transcript.add(line)
    sys.stderr.write(annotation(f"{options.verb} {options.env}", line) if code else "")
    if not options.json:
        Console(highlight=False).print(f"\n{tame(line)}", soft_wrap=True, markup=False)
        if code == 0:
            Console(highlight=False).print(report.url, style="bold", soft_wrap=True)
    with deaf():  # the deploy is done: nothing that comes now is about it
        if advice := first_account(story.env, story.target, report):
            log.info(advice)
    return code, report
