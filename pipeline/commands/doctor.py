"""`nox -s doctor`: what is wrong with a running environment, each finding with its fix.

The engine, the edge, the data stores and the records are asked.
"""

from __future__ import annotations

import contextlib
import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from rich.console import Console

from pipeline.commands import JSON, Result, Verbs
from pipeline.commands.environments import Opener, open_environment
from pipeline.config.project import Environment, Project
from pipeline.data.checkup import Checkup, check_backups
from pipeline.data.records import DataRecords
from pipeline.deploy.ages import old_secrets
from pipeline.deploy.healing import left_by_watch, never_ended
from pipeline.deploy.removal import unremoved
from pipeline.errors import SlipwayError
from pipeline.releases.model import Running, short
from pipeline.releases.records import Record, Records
from pipeline.rotation.state import State
from pipeline.rotation.steps import ROTATIONS
from pipeline.system.certificates import handshake_finding
from pipeline.system.ports import dial
from pipeline.system.progress import Progress
from pipeline.targets import Target, open_target
from pipeline.targets.common.rights import advice
from pipeline.targets.common.stores import store_findings

__all__ = ["add_parsers", "ready_findings"]

log = logging.getLogger(__name__)

SECONDS = 5


def add_parsers(verbs: Verbs) -> None:
    parser = verbs.add("doctor", doctor, "say what is wrong with what runs, and how to fix it", env=True)
    parser.add_argument("--json", **JSON)


def doctor(
    project: Project,
    options: Namespace,
    progress: Progress,
    *,
    opened: Opener = open_target,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Result:
    """Print what is wrong with what runs, each finding with its fix.

    The exit code is 1 where there is a finding.
    """
    env, target = open_environment(project, options, progress, opened)
    records = target.records()
    backups = check_backups(target, DataRecords.of(project, env.name)) if records.serving() else Checkup()
    findings = [*_examine(project, env, target, records, clock()), *backups.findings]
    if not options.json:
        for line in findings:
            log.error(line)
        if not findings:
            Console(highlight=False).print(f"[green]✓[/] {env.name}: nothing is wrong")
        if backups.said:
            log.info(backups.said)
    document = {"environment": env.name, "findings": findings, "backups": backups.document}
    return (1 if findings else 0), document if options.json else None


def _examine(project: Project, env: Environment, target: Target, records: Records, now: datetime) -> list[str]:
    """Return what is wrong with `env`, one line each, empty if all is well; change nothing."""
    deploying = target.holder() is not None
    serving = records.serving()
    findings = list(target.fleet.findings())
    if serving is None:
        return [*findings, f"nothing was ever proved here: `nox -s deploy -- {env.name}`"]
    findings += _replicas(env, target.fleet.running(), serving, deploying=deploying)
    findings += _stores(project, env, target, serving)
    findings += _secrets(project, env, serving, now)
    findings += _edge(target.url, serving, deploying=deploying)
    left = unremoved(records)
    if left:
        findings.append(
            f"what a proof wrote is still in the database: {left}: `nox -s deploy -- {env.name}` tries again"
        )
    findings += [
        f"the watch of deploy {record.number} was killed: `nox -s watch -- {env.name} --release {record.number}` begins"
        f" it anew, `nox -s deploy -- {env.name}` removes what it wrote"
        for record in records.all()
        if left_by_watch(record.folder)
    ]
    if not deploying and never_ended(serving.folder, now) and not left_by_watch(serving.folder):
        again = f"`nox -s watch -- {env.name} --release {serving.number}` begins it anew"
        findings.append(f"the watch of deploy {serving.number} never came to its end: {again}")
    if not deploying:
        findings += [
            f"the deploy of release record {record.number} died in stage `{record.stage}`:"
            f" `nox -s deploy -- {env.name}` cleans up what it left"
            for record in records.killed()
        ]
    return list(dict.fromkeys(findings))


def ready_findings(document: Mapping[str, Any]) -> list[str]:
    """Return a line for each check in the answer of `/ready` that failed or is degraded."""
    return [
        f"/ready: {name}: {check.get('detail') or check.get('state')}"
        for name, check in document.get("checks", {}).items()
        if check.get("state") not in ("ok", "excluded")
    ]


def _replicas(env: Environment, running: Running, serving: Record, *, deploying: bool) -> Iterator[str]:
    fix = f"`nox -s deploy -- {env.name}` fixes it"
    yield from (f"{problem}: {fix}" for problem in running.problems)
    for replica in (*running.replicas, *running.workers):
        release = short(replica.release)
        if not replica.ready and not deploying:
            yield f"{replica.name} (release {release}) is not ready: {replica.state}"
        if replica.release != serving.release and not deploying:
            yield f"{replica.name} runs release {release}, but {short(serving.release)} was proved last: {fix}"
    if len(running.replicas) < running.wanted or not running.replicas:
        yield f"{len(running.replicas)} replicas run, but {running.wanted} should: {fix}"


def _stores(project: Project, env: Environment, target: Target, serving: Record) -> list[str]:
    try:
        stores = target.fleet.stores(serving.release or "")
        needed = target.releases.recorded(serving.release or "").revision
    except SlipwayError as error:
        return [f"the data stores could not be checked: {error.problems[0]}"]
    for line in advice(project.root, stores.get("database", {})):
        log.warning(line)
    return store_findings(stores, needed, f"nox -s deploy -- {env.name}")


def _secrets(project: Project, env: Environment, serving: Record, now: datetime) -> Iterator[str]:
    """Yield the secrets that are too old, and a rotation that is unfinished."""
    old = old_secrets(serving, now)
    if old is None:
        log.info("since when the secrets have been in use is not known: the next deploy begins to note it")
    for line in old or ():
        name = line.split()[0]
        rotate = f"`nox -s rotate -- {env.name} {name}`" if name in ROTATIONS else "set another where it comes from"
        yield f"{line}: {rotate}"
    state = State.read(project.state(env.name))
    if state and not (state.not_before and now < datetime.fromisoformat(state.not_before)):
        command = f"`nox -s rotate -- {env.name} {state.secret} --continue`"
        yield f"the rotation of {state.secret} since {state.since} is unfinished: {command}"


def _edge(url: str, serving: Record, *, deploying: bool) -> Iterator[str]:
    """Yield what is wrong as seen from outside: the certificate, the answer of `/ready`, the release that answers."""
    place = urlsplit(url)
    if place.scheme == "https" and place.hostname:
        with contextlib.suppress(OSError):  # the request to `/ready` reports that nobody answers
            finding = handshake_finding(place.hostname, place.port or 443)
            if finding:
                yield finding
    try:
        address, headers = dial(url)
        # As the proof does: no proxy.
        answer = httpx2.get(f"{address}/ready", headers=headers, timeout=SECONDS, trust_env=False)
    except httpx2.TransportError as error:
        yield f"{url} does not answer ({str(error) or type(error).__name__}): is the edge up, does its name lead to it?"
        return
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict) or "checks" not in document:
        yield f"{url}/ready answers {answer.status_code} without a check: something in front of the service answers"
        return
    yield from ready_findings(document)
    release = answer.headers.get("x-release")
    if release != serving.release and not deploying:
        yield f"{url} is answered by release {short(release) or '?'}, but {short(serving.release)} was proved last"
