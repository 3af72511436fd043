"""The verbs of the command line: each returns an exit code, and the JSON document if one was asked for."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.commands.doctor import examine
from pipeline.commands.rename import rename as rename_service
from pipeline.config.place_of_data import shell_problems
from pipeline.config.project import Environment, Project
from pipeline.config.secrets import SECRET_FILES, write_secret_files
from pipeline.config.settings import (
    compose_text,
    env_text,
    fill_env,
    kubernetes_text,
    read_values,
    settings_page,
    split_secrets,
)
from pipeline.deploy.github import annotation
from pipeline.deploy.report import summary_line
from pipeline.deploy.story import Story
from pipeline.errors import LockHeld, SlipwayError, UsageError
from pipeline.releases.lock import hold_lock
from pipeline.releases.migration_files import migration_file_problems, renumber_migration
from pipeline.releases.model import short
from pipeline.system.progress import Progress, tame
from pipeline.system.waiting import attempts
from pipeline.targets import Target, open_target

__all__ = [
    "access",
    "cluster",
    "deploy",
    "dev",
    "doctor",
    "down",
    "init",
    "migrations",
    "releases",
    "rename",
    "rollback",
    "settings",
    "status",
]

log = logging.getLogger(__name__)

UNDOING_SECONDS = 180  # a cancelled job on GitHub has 300

Result = tuple[int, Any]
Opener = Callable[[Project, Environment, Progress], Target]


def deploy(
    project: Project, options: argparse.Namespace, progress: Progress, *, begin: Callable[..., Story] = Story
) -> Result:
    """Ship the working tree, or the recorded release that `--release` names; `begin` makes the story to tell."""
    story = begin(
        project,
        project.environment(options.env),
        progress,
        empty_database=options.empty_database,
        forgotten=options.forget_migration,
    )
    return _tell(story, options, options.release)


def rollback(
    project: Project, options: argparse.Namespace, progress: Progress, *, begin: Callable[..., Story] = Story
) -> Result:
    """Ship a release that was proved before. `begin` makes the story to tell."""
    env = project.environment(options.env)
    if options.unfinished:
        return _finish(lambda: begin(project, env, progress), env, options, progress)
    story = begin(project, env, progress)
    return _tell(story, options, options.release or str(story.records.previous().number))


def _finish(begin: Callable[[], Story], env: Environment, options: argparse.Namespace, progress: Progress) -> Result:
    """Roll back to the last proved release after a deploy was killed; wait if that deploy is still undoing itself."""
    # The stages of a try that was not let in are forgotten: the report is of the one that is.
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
            return _tell(story, options, str(before.number))
        except LockHeld as error:
            held = error
    raise held


def _tell(story: Story, options: argparse.Namespace, reference: str | None) -> Result:
    dry_run, forward = (getattr(options, name, False) for name in ("dry_run", "forward"))
    try:
        code, report = story.tell(reference=reference, dry_run=dry_run, forward=forward)
    except SlipwayError as error:  # nothing was started, so there is no report
        sys.stderr.write(annotation(f"{options.verb} {options.env}", str(error)))
        raise
    line = summary_line(report)
    sys.stderr.write(annotation(f"{options.verb} {options.env}", line) if code else "")
    if not options.json:
        Console(highlight=False).print(f"\n{tame(line)}", soft_wrap=True, markup=False)
        if code == 0:
            Console(highlight=False).print(report["url"], style="bold", soft_wrap=True)
    return code, report if options.json else None


def status(
    project: Project, options: argparse.Namespace, progress: Progress, *, opened: Opener = open_target
) -> Result:
    """Print what runs, since when, and who holds the lock.

    The exit code is 1 where a release should serve and no replica is ready.
    """
    env = project.environment(options.env)
    _warn_of_the_shell(project, env, progress)
    target = opened(project, env, progress)
    serving, running, holder = target.records().serving(), target.fleet.running(), target.holder()
    ready = [replica for replica in running.replicas if replica.ready]
    document = {
        "environment": env.name,
        "target": env.target,
        "url": target.url,
        "release": serving.release if serving else None,
        "number": serving.number if serving else None,
        "since": serving.finished if serving else None,
        "replicas": [
            {
                "name": replica.name,
                "release": replica.release,
                "ready": replica.ready,
                "state": replica.state,
                "since": replica.since,
                "metrics": replica.metrics,
            }
            for replica in running.replicas
        ],
        "problems": list(running.problems) if running.replicas else [],
        "lock": vars(holder) if holder else None,
    }
    if not options.json:
        _print_status(document)
    return (1 if serving and not ready else 0), document if options.json else None


def _print_status(document: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    release = f"release {short(document['release'])} (number {document['number']}, proved {document['since']})"
    served = release if document["release"] else "nothing deployed yet"
    console.print(f"[bold]{document['environment']}[/]  {document['url']}  {served}")
    for replica in document["replicas"]:
        ready = "[green]ready[/]" if replica["ready"] else "[red]not ready[/]"
        console.print(
            f"  {replica['name']}  {short(replica['release'])}  {ready}  {replica['state']} since {replica['since']}"
            f"  {replica['metrics']}"
        )
    if not document["replicas"]:
        console.print("  no replica is running: `nox -s deploy`")
    for problem in document["problems"]:
        console.print(f"[red]![/] {problem}")
    if document["lock"]:
        lock = document["lock"]
        console.print(f"lock: {lock['holder']} on {lock['host']} (pid {lock['pid']}) since {lock['since']}")


def doctor(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Print what is wrong with what runs, each finding with its fix.

    The exit code is 1 where there is a finding.
    """
    env = project.environment(options.env)
    _warn_of_the_shell(project, env, progress)
    target = open_target(project, env, progress)
    findings = examine(env, target, target.records())
    if options.json:
        return (1 if findings else 0), {"environment": env.name, "findings": findings}
    for line in findings:
        log.error(line)
    if not findings:
        Console(highlight=False).print(f"[green]✓[/] {env.name}: nothing is wrong")
    return (1 if findings else 0), None


def releases(
    project: Project, options: argparse.Namespace, progress: Progress, *, opened: Opener = open_target
) -> Result:
    """List the recorded deploys and rollbacks, newest first."""
    env = project.environment(options.env)
    _warn_of_the_shell(project, env, progress)
    records = opened(project, env, progress).records()
    retained = records.retained(project.retain)
    rows = [
        {
            "number": record.number,
            "release": record.release,
            "verdict": record.verdict,
            "reason": record.reason,
            "commit": record.commit,
            "started": record.started,
            "finished": record.finished,
            "retained": record.release in retained,
        }
        for record in reversed(records.all())
    ]
    if options.json:
        return 0, rows
    table = Table("#", "release", "verdict", "started", "commit", "reason")
    for row in rows:
        verdict = {"proved": "[green]proved[/]", "unchanged": "unchanged"}.get(
            str(row["verdict"]), f"[red]{row['verdict'] or 'died'}[/]"
        )
        release = f"{short(str(row['release'] or '-'))}{' *' if row['retained'] else ''}"
        started, commit, reason = row["started"], str(row["commit"] or "-")[:9], escape(str(row["reason"] or ""))
        table.add_row(str(row["number"]), release, verdict, str(started), commit, reason)
    Console().print(table if rows else f"nothing deployed yet: `nox -s deploy -- {env.name}`")
    if rows:
        Console().print(f"* kept: `nox -s rollback -- {env.name} --release NUMBER` ships it again", style="dim")
    return 0, None


def down(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Stop everything, and remove the data with `--volumes`."""
    env = project.environment(options.env)
    problems = _shell_problems(project, env)
    if problems:  # with --volumes, another project's data could be removed
        raise UsageError(*problems)
    target = open_target(project, env, progress)
    with progress.stage("down"), target.lock():
        target.fleet.down(volumes=options.volumes)
    return 0, None


def _warn_of_the_shell(project: Project, env: Environment, progress: Progress) -> None:
    for line in _shell_problems(project, env):
        log.warning(line)


def _shell_problems(project: Project, env: Environment) -> list[str]:
    """Return where the shell contradicts `.env`; nothing for a cluster, where neither of them decides."""
    return [] if env.target == "kubernetes" else shell_problems(project.root)


def init(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Write what `.env` lacks, and the secret files of docker-compose.yml."""
    added = fill_env(project.root)
    for line in shell_problems(project.root):
        log.warning(line)
    log.info(f"wrote .env: {', '.join(added)}" if added else ".env is complete: nothing was changed")
    write_secret_files(project.root / SECRET_FILES, split_secrets(read_values(project.root))[1])
    log.info(f"wrote the secrets of docker-compose.yml to {SECRET_FILES}, a folder that only you can open")
    return 0, None


def rename(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Give the service another name, everywhere."""
    if not rename_service(project.root, project.name, options.name):
        log.info(f"the service is already called {options.name}: nothing to do")
    return 0, None


def access(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Write the kubeconfig of an environment from what the GitHub job is given."""
    from pipeline.commands.access import write_kubeconfig

    log.info(write_kubeconfig(project.environment(options.env), os.environ))
    return 0, None


def migrations(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Check the migration files, or move one to the end of the chain."""
    if options.renumber is None:
        problems = migration_file_problems(project.root)
        if problems:
            raise SlipwayError(*problems)
        return 0, None
    for line in renumber_migration(project.root, options.renumber):
        log.info(line)
    for problem in migration_file_problems(project.root):  # other problems remain
        log.warning(problem)
    return 0, None


def settings(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Check the files that are made from the settings schema, or write them with `--write`."""
    stale = []
    compose = project.root / "docker-compose.yml"
    made = {".env.example": env_text(), "docs/settings.md": settings_page()}
    if compose.exists():
        made["docker-compose.yml"] = compose_text(compose.read_text(encoding="utf-8"))
    if (project.root / "k8s/base").exists():
        made["k8s/base/settings.env"] = kubernetes_text()
    for name, text in made.items():
        path = project.root / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if options.write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
            log.info(f"wrote {name}")
    if stale and not options.write:
        raise SlipwayError(
            *(f"{name} does not agree with backend/settings.py: `nox -s settings -- --write`" for name in stale)
        )
    return 0, None


def cluster(project: Project, options: argparse.Namespace, progress: Progress) -> Result:
    """Set up a kind cluster and a registry, ready for `deploy -- kind`, or remove all of it."""
    from pipeline.engines.kind import CONTEXT, EDGE_PORT, REGISTRY, Cluster

    kind = Cluster(project.root, progress)
    with hold_lock(project.state("cluster") / "lock"):
        if options.action == "down":
            log.info("removed all of it" if kind.down() else "there was nothing to remove")
            return 0, None
        changed = kind.up(options.gateway_api)
    log.info(
        f"{'ready' if changed else 'already up to date'}: context {CONTEXT}, registry {REGISTRY},"
        f" edge http://localhost:{EDGE_PORT}"
    )
    log.info("next: nox -s deploy -- kind")
    return 0, None


def dev(project: Project, options: argparse.Namespace, progress: Progress) -> Result:  # noqa: ARG001 - a verb
    """Run the service with reload, on throwaway data stores."""
    from pipeline.commands.dev import serve

    serve(project, progress)
    return 0, None
