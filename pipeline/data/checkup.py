"""What `doctor` says of backups: how old the newest is, when one was tried last, and what that found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.data.drill import too_old
from pipeline.data.healing import died
from pipeline.data.records import DataRecords
from pipeline.data.summaries import Backup, read_backups
from pipeline.errors import SlipwayError
from pipeline.system.text import duration
from pipeline.targets import Target

__all__ = ["Checkup", "check_backups"]


@dataclass(frozen=True)
class Checkup:
    """What is wrong, one line each with its fix; what is known, as a sentence ("" for nothing) and for `--json`."""

    findings: tuple[str, ...] = ()
    said: str = ""
    document: Mapping[str, Any] | None = None


def check_backups(target: Target, records: DataRecords) -> Checkup:
    """Say how the backups of `target` are. Where its table in pyproject.toml has no `backups`, nothing is missed."""
    env, findings = target.env, [died(record, target.env.name) for record in records.dead()]
    newest, drill = None, _last_drill(target, records)
    if env.backups is not None:
        try:
            backups, problem = read_backups(target)
        except SlipwayError as error:
            return Checkup((*findings, f"the backups cannot be listed: {error.problems[0]}"))
        newest = next(iter(backups), None)
        findings += [problem] if problem else []
        findings += _about(newest, drill, target)
    if newest is None and drill is None:
        return Checkup(tuple(findings))
    said = [f"the newest backup is {duration(newest.age)} old"] if newest else []
    said += [f"the last drill, {duration(_age(drill))} ago, {_outcome(drill)}"] if drill else []
    document = {
        "newest": newest.name if newest else None,
        "age_seconds": round(newest.age) if newest else None,
        "max_age_seconds": env.kept.seconds,
        "drill": drill and {name: drill.get(name) for name in ("verdict", "finished", "rpo_seconds", "rto_seconds")},
    }
    return Checkup(tuple(findings), "; ".join(said), document)


def _about(newest: Backup | None, drill: Mapping[str, Any] | None, target: Target) -> list[str]:
    """Return what is wrong with the newest backup and with the last drill."""
    env, again = target.env, f"`nox -s backup -- {target.env.name}`"
    if newest is None:
        return [f"there is no backup: {again} makes one ({target.backups.hint()})"]
    old = too_old(env, newest)
    findings = [f"the newest backup is {newest.name}: {old}: {again} ({target.backups.hint()})"] if old else []
    if drill is None:
        findings.append(f"no backup was ever tried: `nox -s drill -- {env.name}`")
    elif drill["verdict"] != "proved":
        findings.append(f"the last drill, {duration(_age(drill))} ago, {_outcome(drill)}: `nox -s drill -- {env.name}`")
    return findings


def _last_drill(target: Target, records: DataRecords) -> Mapping[str, Any] | None:
    """Return the newest report of a drill: one of this machine, or one that a schedule ran elsewhere."""
    both = filter(None, (records.last("drill"), target.backups.drilled()))
    return max(both, key=lambda report: str(report.get("finished") or report["started"]), default=None)


def _age(drill: Mapping[str, Any]) -> float:
    done = datetime.fromisoformat(drill.get("finished") or drill["started"])
    return (datetime.now(UTC) - done).total_seconds()


def _outcome(drill: Mapping[str, Any]) -> str:
    return "found nothing wrong" if drill["verdict"] == "proved" else f"{drill['verdict']}: {drill['reason']}"
