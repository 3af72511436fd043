"""The evidence of a deploy or rollback: `report.json`, `report.md` and `timeline.svg`."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.deploy.timeline import Mark, timeline_svg
from pipeline.proof.results import Failure, Latency, TrafficResult
from pipeline.proof.verdict import BASELINE
from pipeline.releases.model import short
from pipeline.system.files import write_whole
from pipeline.system.progress import StageRecord

__all__ = [
    "SCHEMA",
    "DeployFacts",
    "RollbackFacts",
    "build_report",
    "code",
    "render_markdown",
    "summary_line",
    "write_evidence",
]

SCHEMA = "slipway.report/1"
EXAMPLES = 5  # of each kind of failure
PICTURE = "![requests a second by answering release, failures, latency](timeline.svg)"
MARKUP = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)|\A[#+-]")
Report = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RollbackFacts:
    """What undoing a deploy did. `release` is the one that was brought back."""

    release: str | None
    verdict: str
    reason: str | None
    stages: Sequence[StageRecord] = ()
    traffic: TrafficResult | None = None


@dataclass(frozen=True, kw_only=True)
class DeployFacts:
    """Everything a report says. Times are RFC 3339.

    `slow`: the verdict found the release too slow. `stages` are the deploy's own, `events` are further marks for the
    picture (a replica that joined the edge).
    """

    environment: str
    target: str
    url: str
    number: int
    release: str | None
    previous: str | None
    commit: str | None
    dirty: bool
    verdict: str  # proved, unchanged, rolled_back, failed, interrupted
    reason: str | None
    started: str
    finished: str | None  # None: the deploy was killed, and a later one wrote this
    stages: Sequence[StageRecord]
    traffic: TrafficResult | None
    rollback: RollbackFacts | None = None
    events: Sequence[Mark] = ()
    slow: bool = False
    inside: Mapping[str, Any] | None = None  # what a second vantage, beside the service, saw and reported
    remarks: Sequence[str] = ()  # what the engine did on its own meanwhile


def build_report(facts: DeployFacts) -> Report:
    """Return the content of `report.json`, whose names other programs rely on."""
    rollback = facts.rollback
    return {
        "schema": SCHEMA,
        "environment": facts.environment,
        "target": facts.target,
        "url": facts.url,
        "number": facts.number,
        "release": facts.release,
        "previous": facts.previous,
        "commit": facts.commit,
        "dirty": facts.dirty,
        "verdict": facts.verdict,
        "reason": facts.reason,
        "started": facts.started,
        "finished": facts.finished,
        "stages": [asdict(stage) for stage in facts.stages],
        "traffic": _traffic(facts.traffic, facts.release, slow=facts.slow),
        "inside": dict(facts.inside) if facts.inside else None,
        "remarks": list(facts.remarks),
        "events": [asdict(event) for event in facts.events],
        "rollback": None
        if rollback is None
        else {
            "release": rollback.release,
            "verdict": rollback.verdict,
            "reason": rollback.reason,
            "stages": [asdict(stage) for stage in rollback.stages],
            "traffic": _traffic(rollback.traffic, rollback.release, slow=False),
        },
    }


def _traffic(result: TrafficResult | None, release: str | None, *, slow: bool) -> Report | None:
    if result is None:
        return None
    return {
        "sent": result.sent,
        "ok": result.ok,
        "failed": result.failed,
        "baseline": sum(share.sent - share.ok for share in result.shares if share.phase == BASELINE),
        "by_release": _by_release(result),
        "failures": _failures(result, release, slow=slow),
        "latency_ms": _ms(result.latency),
        "writes_acknowledged": result.writes_acknowledged,
        "writes_lost": result.writes_lost,
        "writes_unread": result.writes_unread,
        "writes_left": result.writes_left,
        "generator_lag_ms": result.lag_ms,
        "generator_stalled_ms": result.stalled_ms,
        "generator_skipped": result.skipped,
        "generator_cpu_seconds": result.cpu_seconds,
        "phases": [asdict(phase) for phase in result.phases],
        "timeline": [asdict(entry) for entry in result.bins],
    }


def _by_release(result: TrafficResult) -> Report:
    """Return the counts of each release; answers that name no release are only in the totals and in `failures`."""
    sent: Counter[str] = Counter()
    ok: Counter[str] = Counter()
    for share in result.shares:
        if share.release:
            sent[share.release] += share.sent
            ok[share.release] += share.ok
    return {
        name: {
            "sent": count,
            "ok": ok[name],
            "failed": count - ok[name],
            "latency_ms": _ms(result.by_release.get(name)),
        }
        for name, count in sent.items()
    }


def _failures(result: TrafficResult, release: str | None, *, slow: bool) -> Report:
    counts = sum((Counter(share.failed) for share in result.shares), Counter[str]())
    counts["lost"] = result.writes_lost
    counts["slow"] = sum(share.slow for share in result.shares if share.release == release) if slow else 0
    # The new release's come first: if the old one fails too, its failures are older and say nothing about this deploy.
    ordered = sorted(result.failures, key=lambda failure: (failure.release != release, failure.at))
    return {kind: {"count": n, "examples": _examples(ordered, kind)} for kind, n in counts.most_common() if n}


def _examples(failures: Iterable[Failure], kind: str) -> list[Report]:
    return [asdict(failure) for failure in failures if failure.kind == kind][:EXAMPLES]


def _ms(latency: Latency | None) -> dict[str, float] | None:
    return asdict(latency) if latency else None


def write_evidence(folder: Path, report: Report) -> None:
    """Write the three files of `report` into `folder`, each whole or not at all.

    Raise `OSError` where that fails.
    """
    for name, text in (
        ("timeline.svg", _picture(report)),
        ("report.md", render_markdown(report)),
        ("report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n"),  # last: it completes the record
    ):
        write_whole(folder / name, text)


def _picture(report: Report) -> str:
    parts = [report, *([report["rollback"]] if report["rollback"] else [])]
    bins = [entry for part in parts for entry in (part["traffic"] or {}).get("timeline", ())]
    marks = [Mark(stage["at"], stage["name"]) for part in parts for stage in part["stages"]]
    return timeline_svg(
        title=f"Deploy {report['number']} on {report['environment']}: {report['verdict'].replace('_', ' ')}",
        subtitle=summary_line(report),
        bins=bins,
        marks=[*marks, *(Mark(**event) for event in report["events"])],
        new=report["release"],
        old=report["previous"],
    )


def summary_line(report: Report) -> str:
    """Return what happened, as a sentence without a final period."""
    where, reason, name = report["environment"], report["reason"], f"release {short(report['release'])}"
    name = name if report["release"] else "the new release"
    match report["verdict"]:
        case "proved":
            return f"{_capital(name)} serves {where}: {reason or _counts(report['traffic'])}"
        case "unchanged":
            return (
                f"Nothing was changed on {where}: {reason or f'{name} is already running and every replica is ready'}"
            )
        case "rolled_back":
            return f"{_capital(name)} was undone on {where}: {reason}; {_serving(report)}"
        case "interrupted" if not report["finished"]:
            return f"The deploy of {name} to {where} was killed: {reason}; the next one cleaned up after it"
        case "interrupted":
            return f"The deploy of {name} to {where} was interrupted; {_serving(report)}"
        case _:
            return f"The deploy of {name} to {where} failed: {reason}; {_serving(report)}"


def _serving(report: Report) -> str:
    """Return which release serves after a deploy that was not proved, in words."""
    rollback, previous = report["rollback"], report["previous"]
    if rollback and rollback["release"] is None:
        return str(rollback["reason"])
    if rollback and rollback["verdict"] != "proved":
        return f"THE ROLLBACK FAILED, TOO: {rollback['reason']}"
    if rollback:
        return f"release {short(rollback['release'])} serves again"
    return f"release {short(previous)} still serves, untouched" if previous else "nothing running was touched"


def _counts(traffic: Report | None) -> str:
    return f"{traffic['sent']} requests, {traffic['failed'] or 'none'} failed" if traffic else "no traffic was sent"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def render_markdown(report: Report, *, picture: str = PICTURE) -> str:
    """Return `report.md`: what happened, the figures, and what the reader can do now.

    GitHub shows it with another `picture`.
    """
    rollback = report["rollback"]
    parts = [
        f"# {_prose(summary_line(report))}",
        picture,
        _table(("", ""), _facts(report)),
        *_traffic_parts("The traffic", report["traffic"]),
        *([f"Seen from inside: {_prose(report['inside']['said'])}."] if report["inside"] else []),
        *(f"Meanwhile {_prose(line)}." for line in report["remarks"]),
        "## Stages",
        _table(("stage", "seconds", "outcome", ""), _stages(report["stages"])),
    ]
    if rollback:
        parts += [
            "## The rollback",
            _prose(rollback["reason"] or f"Release {short(rollback['release'])} serves again."),
        ]
        parts += (
            [_table(("stage", "seconds", "outcome", ""), _stages(rollback["stages"]))] if rollback["stages"] else []
        )
        parts += _traffic_parts("The rollback's traffic", rollback["traffic"])
    parts += ["## What now", "\n".join(f"- {line}" for line in _advice(report))]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report) -> list[tuple[str, str]]:
    took = ""  # nobody saw the end of a deploy that was killed
    if report["finished"]:
        seconds = datetime.fromisoformat(report["finished"]) - datetime.fromisoformat(report["started"])
        took = f", took {seconds.total_seconds():.0f} s"
    dirty = " and uncommitted changes" if report["dirty"] else ""
    return [
        ("number", str(report["number"])),
        ("release", code(report["release"] or "none was built")),
        ("previous", code(report["previous"] or "none")),
        ("commit", f"{code(report['commit'] or 'no git repository')}{dirty}"),
        ("environment", f"{report['environment']} ({report['target']}), <{report['url']}>"),
        ("started", f"{report['started']}{took}"),
    ]


def _traffic_parts(title: str, traffic: Report | None) -> list[str]:
    if traffic is None:
        return []
    unread = "not read back, because the rollout had already failed"
    read = unread if traffic["writes_unread"] else f"{traffic['writes_lost'] or 'none'} lost"
    lines = [f"{_counts(traffic)}; {traffic['writes_acknowledged']} writes acknowledged, {read}."]
    if traffic["baseline"]:
        lines.append(
            f"{traffic['baseline']} requests had already failed before anything was changed:"
            " only the new release's answers were judged."
        )
    if traffic["generator_skipped"]:
        lines.append(f"The machine was too busy to send {traffic['generator_skipped']} more requests.")
    if traffic["writes_left"]:
        lines.append(
            f"{traffic['writes_left']} synthetic writes could not be removed yet; the next deploy removes them."
        )
    rows = [
        (code(short(name)), counts["sent"], counts["failed"], *(counts["latency_ms"] or {}).values())
        for name, counts in traffic["by_release"].items()
    ]
    parts = [f"## {title}", "\n".join(lines)]
    if rows:
        parts.append(_table(("answered by", "requests", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms"), rows))
    for kind, failures in traffic["failures"].items():
        parts.append(f"### {failures['count']} × {kind}")
        parts.append(
            _table(("when (UTC)", "request", "release", "request id", "result"), _example_rows(failures["examples"]))
        )
    return parts


def _example_rows(examples: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            example["at"][11:23],
            code(f"{example['method']} {example['path']}"),
            code(short(example["release"]) or "none"),
            code(example["request_id"]),
            code(example["detail"] or "—"),
        )
        for example in examples
    ]


def _stages(stages: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [(stage["name"], f"{stage['seconds']:.1f}", stage["outcome"], _prose(stage["note"])) for stage in stages]


def _advice(report: Report) -> list[str]:
    environment = report["environment"]
    again = f"`nox -s deploy -- {environment}` deploys again once it is fixed."
    match report["verdict"]:
        case "proved":
            return [
                f"`nox -s rollback -- {environment}` goes back to the previous release.",
                f"`nox -s status -- {environment}` shows each replica.",
            ]
        case "unchanged":
            return [f"`nox -s status -- {environment}` shows each replica."]
        case "interrupted":
            return [again]
    rollback = report["rollback"]
    if rollback and rollback["release"] and rollback["verdict"] != "proved":
        return [
            f"`nox -s status -- {environment}` shows what is running; this needs attention now.",
            f"`nox -s releases -- {environment}` lists the releases that `nox -s rollback` can bring back.",
            again,
        ]
    return (
        ["Look for the request ids above in the service's log (`request_id`).", again] if report["traffic"] else [again]
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *([*map(str, row), *[""] * (len(header) - len(row))] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: str) -> str:
    """Return `text` as code in a table cell, whatever a service answered."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split()) + "`"


def _prose(text: str) -> str:
    """Return `text` as prose on one line: what is between backticks stays code, and any other markup is escaped."""
    parts = re.split(r"(?<!`)`([^`]+)`(?!`)", " ".join(text.split()))  # every second part is code
    return "".join(code(part) if number % 2 else MARKUP.sub(r"\\\g<0>", part) for number, part in enumerate(parts))
