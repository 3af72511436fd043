"""`nox -s status`, `nox -s releases` and `nox -s down`: show what is in an environment, or stop it."""

from __future__ import annotations

import logging
import textwrap
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.commands import JSON, Result, Verbs
from pipeline.config.place_of_data import shell_problems
from pipeline.config.project import Environment, Project
from pipeline.errors import UsageError
from pipeline.releases.model import Replica, short
from pipeline.releases.records import Record
from pipeline.system.progress import Progress
from pipeline.targets import Target, open_target

__all__ = ["Opener", "add_parsers", "open_environment"]

log = logging.getLogger(__name__)

COMMIT_DIGITS = 7  # as git shortens a commit, with `-dirty` as `git describe` has it: so a line fits 80 columns
INDENT, NARROWEST = "    ", 20  # of a reason

Opener = Callable[[Project, Environment, Progress], Target]


def add_parsers(verbs: Verbs) -> None:
    add = verbs.add("down", down, "stop everything", env=True).add_argument
    add("--volumes", action="store_true", help="also remove the data")
    add = verbs.add("status", status, "show what runs", env=True).add_argument
    add("--json", **JSON)
    add("--watch", action="store_true", help="show it live, with traffic and alerts, until Ctrl-C; JSON: one a line")
    verbs.add("releases", releases, "list the recorded releases", env=True).add_argument("--json", **JSON)


def open_environment(
    project: Project, options: Namespace, progress: Progress, opened: Opener = open_target
) -> tuple[Environment, Target]:
    """Return the environment that `options` name and its target, and warn if the shell contradicts `.env`."""
    env = project.environment(options.env)
    for line in _shell_problems(project, env):
        log.warning(line)
    return env, opened(project, env, progress)


def _shell_problems(project: Project, env: Environment) -> list[str]:
    """Return how the shell contradicts `.env`, one line each; nothing for a cluster, because neither decides there."""
    return [] if env.target == "kubernetes" else shell_problems(project.root)


def status(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """Print what runs, since when, and who holds the lock; with `--watch`, again and again.

    The exit code is 1 if a release should serve and no replica is ready.
    """
    env, target = open_environment(project, options, progress, opened)
    if options.watch:
        from pipeline.live.watcher import Watcher, watch

        # A target reads `.env` when it is opened, and what runs may be exchanged meanwhile.
        watch(Watcher(env, lambda: _status_of(env, opened(project, env, progress))), as_json=options.json)
    document = _status_of(env, target)
    if not options.json:
        _print_status(document)
    unserved = document["release"] and not any(replica["ready"] for replica in document["replicas"])
    return (1 if unserved else 0), document if options.json else None


def _status_of(env: Environment, target: Target) -> dict[str, Any]:
    serving, running, holder = target.records().serving(), target.fleet.running(), target.holder()
    return {
        "environment": env.name,
        "target": env.target,
        "url": target.url,
        "release": serving.release if serving else None,
        "number": serving.number if serving else None,
        "since": serving.finished if serving else None,
        "replicas": [
            _fields(replica, "name", "release", "ready", "state", "since", "metrics") for replica in running.replicas
        ],
        "workers": [_fields(worker, "name", "release", "ready", "state", "since") for worker in running.workers],
        "problems": list(running.problems) if running.replicas else [],
        "lock": vars(holder) if holder else None,
    }


def _print_status(document: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    release = f"release {short(document['release'])} (number {document['number']}, proved {document['since']})"
    served = release if document["release"] else "nothing deployed yet"
    console.print(f"[bold]{document['environment']}[/]  {document['url']}  {served}")
    for replica in (*document["replicas"], *document["workers"]):
        ready = "[green]ready[/]" if replica["ready"] else "[red]not ready[/]"
        console.print(
            f"  {replica['name']}  {short(replica['release'])}  {ready}  {replica['state']} since {replica['since']}"
            f"  {replica.get('metrics', '(worker)')}"
        )
    if not document["replicas"]:
        console.print("  no replica is running: `nox -s deploy`")
    for problem in document["problems"]:
        console.print(f"[red]![/] {problem}")
    if lock := document["lock"]:
        console.print(f"lock: {lock['holder']} on {lock['host']} (pid {lock['pid']}) since {lock['since']}")


def releases(project: Project, options: Namespace, progress: Progress, *, opened: Opener = open_target) -> Result:
    """List the recorded deploys and rollbacks, newest first."""
    env, target = open_environment(project, options, progress, opened)
    records = target.records()
    retained = records.retained(project.retain)
    rows = [
        _fields(record, "number", "release", "verdict", "reason", "commit", "dirty", "started", "finished", "watch")
        | {"retained": record.release in retained}
        for record in reversed(records.all())
    ]
    if options.json:
        return 0, rows
    if rows:
        _print_releases(rows, f"nox -s rollback -- {env.name}")
    else:
        Console().print(f"nothing deployed yet: `nox -s deploy -- {env.name}`")
    return 0, None


def _print_releases(rows: Sequence[Mapping[str, Any]], back: str) -> None:
    """Print `rows`, each on a line of at most 80 columns with its reason below, and how to go `back` to one."""
    console = Console(highlight=False)
    head = ("#", "release", "verdict", "started (UTC)", "commit")
    lines = [head, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line, row in zip(lines, [None, *rows], strict=True):
        verdict = "bold" if row is None else {"proved": "green", "unchanged": ""}.get(str(row["verdict"]), "red")
        styles = ["bold" if row is None else ""] * len(head)
        styles[head.index("verdict")] = verdict
        cells = [(f"{cell:<{width}}  ", style) for cell, width, style in zip(line, widths, styles, strict=True)]
        text = Text.assemble(*cells)
        text.rstrip()
        console.print(text, soft_wrap=True)
        said = str((row or {}).get("reason") or (row or {}).get("watch") or "")
        for part in textwrap.wrap(said, max(console.width - len(INDENT), NARROWEST)):
            console.print(f"{INDENT}{part}", markup=False, soft_wrap=True, style="dim")
    console.print(f"* kept: `{back} --release NUMBER` ships it again", style="dim", soft_wrap=True)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    release = f"{short(str(row['release'] or '-'))}{' *' if row['retained'] else ''}"
    at = datetime.fromisoformat(row["started"]).astimezone(UTC) if row["started"] else None
    commit = f"{str(row['commit'] or '-')[:COMMIT_DIGITS]}{'-dirty' if row['dirty'] else ''}"
    started = f"{at:%Y-%m-%d %H:%M:%S}" if at else "-"
    return str(row["number"]), release, str(row["verdict"] or "died"), started, commit


def _fields(source: Record | Replica, *names: str) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def down(project: Project, options: Namespace, progress: Progress) -> None:
    """Stop everything, and remove the data with `--volumes`."""
    env = project.environment(options.env)
    if problems := _shell_problems(project, env):  # with --volumes, another project's data could be removed
        raise UsageError(*problems)
    target = open_target(project, env, progress)
    with progress.stage("down"), target.lock():
        target.fleet.down(volumes=options.volumes)
