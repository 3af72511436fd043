"""The evidence of a deploy or rollback: `report.json`, `report.md`, `timeline.svg`, and `requests.svg` if compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

from pipeline.deploy.requests_picture import drawn, requests_svg
from pipeline.deploy.timeline import Timeline, timeline_svg
from pipeline.proof.comparison import Compared, Comparison, Side
from pipeline.proof.report import Report, TrafficReport
from pipeline.proof.results import Failure
from pipeline.releases.model import short
from pipeline.system.files import write_whole
from pipeline.system.markdown import code, prose, stages_table, table
from pipeline.system.text import figure

__all__ = ["render_markdown", "summary_line", "write_evidence"]

PICTURE = "![requests a second by answering release, failures, latency](timeline.svg)"
REQUESTS_PICTURE = "![how many times as slow each request is, with its 95 % interval](requests.svg)"


def write_evidence(folder: Path, report: Report) -> None:
    """Write the files of `report` into `folder`, each whole or not at all.

    Raise `OSError` if that fails.
    """
    compared = report.traffic and report.traffic.comparison
    requests = requests_svg(compared, title=f"Each request of deploy {report.number}") if compared else ""
    for name, text in (
        ("timeline.svg", _picture(report)),
        *([("requests.svg", requests)] if requests else []),
        ("report.md", render_markdown(report)),
        # Last: it completes the record.
        ("report.json", json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n"),
    ):
        write_whole(folder / name, text)


def _picture(report: Report) -> str:
    title = f"Deploy {report.number} on {report.environment}: {report.verdict.replace('_', ' ')}"
    return timeline_svg(Timeline.of(report, *report.events), title=title, subtitle=summary_line(report))


def summary_line(report: Report) -> str:
    """Return what happened, and what to know besides, as a sentence without a final period."""
    return "; ".join([_outcome(report), *report.remarks])


def _outcome(report: Report) -> str:
    where, reason, name = report.environment, report.reason, f"release {short(report.release)}"
    name = name if report.release else "the new release"
    match report.verdict:
        case "proved":
            return f"{_capital(name)} serves {where}: {reason or _counts(report.traffic)}"
        case "unchanged":
            return (
                f"Nothing was changed on {where}: {reason or f'{name} is already running and every replica is ready'}"
            )
        case "rolled_back" | "inconclusive":
            done = f"was undone on {where}" if report.rollback else f"serves {where}"
            doubt = ", neither proved nor refused" if report.verdict == "inconclusive" else ""
            end = f"{_toll(report)}; {_serving(report)}" if report.rollback else ""
            return f"{_capital(name)} {done}{doubt}: {reason}{end}"
        case "interrupted" if not report.finished:
            return f"The deploy of {name} to {where} was killed: {reason}; the next one cleaned up after it"
        case "interrupted":
            return f"The deploy of {name} to {where} was interrupted{_toll(report)}; {_serving(report)}"
        case _:
            return f"The deploy of {name} to {where} failed: {reason}{_toll(report)}; {_serving(report)}"


def _toll(report: Report) -> str:
    """Return how many requests failed until the release was undone, unless the reason says so."""
    toll = report.rollback.until_undone if report.rollback else None
    return f"; {toll}" if toll and str(toll) not in (report.reason or "") else ""


def _serving(report: Report) -> str:
    """Describe which release serves after a deploy that was not proved."""
    rollback, previous = report.rollback, report.previous
    if rollback and rollback.release is None:
        return str(rollback.reason)
    if rollback and rollback.verdict != "proved":
        return f"THE ROLLBACK FAILED, TOO: {rollback.reason}"
    if rollback:
        return f"release {short(rollback.release)} serves again"
    return f"release {short(previous)} still serves, untouched" if previous else "nothing running was touched"


def _counts(traffic: TrafficReport | None) -> str:
    return f"{traffic.sent} requests, {traffic.failed or 'none'} failed" if traffic else "no traffic was sent"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def render_markdown(report: Report, *, picture: str = PICTURE) -> str:
    """Return `report.md`: what happened, the figures, and what the reader can do now.

    `picture` is the line that shows the timeline: GitHub needs another one.
    """
    rollback = report.rollback
    toll = rollback.until_undone if rollback else None
    parts = [
        f"# {prose(summary_line(report))}",
        picture,
        table(("", ""), _facts(report)),
        *_traffic_parts("The traffic", report.traffic, str(toll) if toll else None, pictures=picture == PICTURE),
        *([f"Seen from inside: {prose(report.inside[0])}."] if report.inside else []),
        *(f"Remark: {prose(line)}." for line in report.remarks),
        *([f"Afterwards: {prose(report.watch.said)}."] if report.watch else []),
        "## Stages",
        stages_table(report.stages),
    ]
    if rollback:
        serves = f"Release {short(rollback.release)} serves again."
        parts += ["## The rollback", prose(rollback.reason or serves)]
        parts += [stages_table(rollback.stages)] if rollback.stages else []
        parts += _traffic_parts("The rollback's traffic", rollback.traffic, _counts_back(report))
    parts += ["## What now", "\n".join(f"- {line}" for line in _advice(report))]
    return "\n\n".join(parts) + "\n"


def _facts(report: Report) -> list[tuple[str, str]]:
    # Nobody saw the end of a deploy that was killed.
    took = "" if report.seconds is None else f", took {report.seconds:.0f} s"
    dirty = " and uncommitted changes" if report.dirty else ""
    return [
        ("number", str(report.number)),
        ("release", code(report.release or "none was built")),
        ("previous", code(report.previous or "none")),
        ("commit", f"{code(report.commit or 'no git repository')}{dirty}"),
        ("environment", f"{report.environment} ({report.target}), <{report.url}>"),
        ("started", f"{report.started}{took}"),
    ]


def _counts_back(report: Report) -> str | None:
    """Return how many requests failed until the release was undone, and how many afterwards; None where it was not."""
    rollback, traffic = report.rollback, report.traffic
    if not rollback or not rollback.until_undone or not rollback.traffic or not traffic:
        return None
    toll, back = rollback.until_undone, rollback.traffic
    sent, failed = traffic.sent + back.sent - toll.sent, traffic.failed + back.failed - toll.failed
    return f"{toll}, and {failed or 'none'} of {sent} afterwards"


def _traffic_parts(
    title: str, traffic: TrafficReport | None, counts: str | None, *, pictures: bool = False
) -> list[str]:
    """Return the part of the report on `traffic`.

    `counts`: what its first line says instead of its own counts; `pictures`: whether it may show files.
    """
    if traffic is None:
        return []
    unread = "not read back, because the rollout had already failed"
    read = unread if traffic.writes_unread else f"{traffic.writes_lost or 'none'} lost"
    lines = [f"{counts or _counts(traffic)}; {traffic.writes_acknowledged} writes acknowledged, {read}."]
    if traffic.confidence is not None:
        lines.append(f"With 95 % confidence, at most {figure(100 * traffic.confidence, 2)} % of the requests fail.")
    if traffic.baseline:
        lines.append(
            f"{traffic.baseline} requests had already failed before anything was changed:"
            " only the new release's answers were judged."
        )
    if traffic.generator_skipped:
        lines.append(f"The machine was too busy to send {traffic.generator_skipped} more requests.")
    if traffic.writes_left:
        lines.append(f"{traffic.writes_left} synthetic writes could not be removed yet; the next deploy removes them.")
    rows = [
        (code(short(name)), answers.sent, answers.failed, *(astuple(answers.latency_ms) if answers.latency_ms else ()))
        for name, answers in traffic.by_release.items()
    ]
    parts = [f"## {title}", "\n".join(lines)]
    if rows:
        parts.append(table(("answered by", "requests", "failed", "p50 ms", "p95 ms", "p99 ms", "max ms"), rows))
    if traffic.comparison:
        parts += _comparison(traffic.comparison)
        parts += [REQUESTS_PICTURE] if pictures and drawn(traffic.comparison) else []
    for kind, failures in traffic.failures.items():
        parts += [f"### {failures.count} × {kind}", _examples(failures.examples)]
    return parts


def _comparison(comparison: Comparison) -> list[str]:
    """Return the table of what each request takes now and took before, and its picture."""
    rows = [
        (code(one.request), *_side(one.old, failed=False), *_side(one.new, failed=True), _slower_by(one))
        for one in comparison.requests
    ]
    header = ("request", "before", "p50 ms", "p95 ms", "now", "failed", "p50 ms", "p95 ms", "times as slow")
    parts = ["### Each request", table(header, rows)] if rows else []
    if comparison.tail:
        parts.append(f"Of all that are compared, {comparison.tail}.")
    return parts


def _side(side: Side | None, *, failed: bool) -> tuple[object, ...]:
    if side is None:
        return ("—",) * (4 if failed else 3)
    counts = (side.sent, side.failed) if failed else (side.sent,)
    return (*counts, *("—" if value is None else figure(value) for value in (side.p50, side.p95)))


def _slower_by(one: Compared) -> str:
    if not one.effect:
        return f"not compared: {one.without}"
    low, high = one.effect.low, one.effect.high
    interval = f" ({figure(low, 2)} to {figure(high, 2)})" if low and high else ""
    found = ", **slow**" if one.slow else ", cannot be told" if one.unsure else ""
    return f"{figure(one.effect.ratio, 2)}{interval}{found}"


def _examples(examples: Sequence[Failure]) -> str:
    rows = [
        (
            example.at[11:23],
            code(f"{example.method} {example.path}"),
            code(short(example.release) or "none"),
            code(example.request_id),
            code(example.detail or "—"),
        )
        for example in examples
    ]
    return table(("when (UTC)", "request", "release", "request id", "result"), rows)


def _advice(report: Report) -> list[str]:
    environment = report.environment
    again = f"`nox -s deploy -- {environment}` deploys again once it is fixed."
    if report.verdict in ("proved", "unchanged"):
        back = f"`nox -s rollback -- {environment}` goes back to release {short(report.back)}."
        return [*([back] if report.back else []), f"`nox -s status -- {environment}` shows each replica."]
    if report.verdict == "interrupted":
        return [f"`nox -s deploy -- {environment}` deploys again."]
    rollback = report.rollback
    if rollback and rollback.release and rollback.verdict != "proved":
        return [
            f"`nox -s status -- {environment}` shows what is running; this needs attention now.",
            f"`nox -s releases -- {environment}` lists the releases that `nox -s rollback` can bring back.",
            again,
        ]
    if report.verdict == "inconclusive":
        more = "A higher `rate`, a longer `bake_limit_seconds` or a quieter machine tells more"
        return [f"`nox -s deploy -- {environment}` tries again.", f"{more}: docs/2-your-own-service.md says how much."]
    examples = [one for kind in (report.traffic.failures if report.traffic else {}).values() for one in kind.examples]
    if not report.log or not examples:
        return [again]
    found = report.log.replace("REQUEST_ID", examples[0].request_id)
    return [f"`{found}` finds the first request above in the service's log, by its id.", again]
