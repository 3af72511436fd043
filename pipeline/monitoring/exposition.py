"""What deploys, backups and drills leave as metrics: Prometheus' text format, made from their records.

It imports nothing but the standard library, so that an exporter in a container needs this file alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

__all__ = ["exposition"]

Document = Mapping[str, Any]
Sample = tuple[str, Mapping[str, str], float]


def exposition(
    environment: str,
    *,
    deploys: Iterable[Document] = (),
    stories: Iterable[Document] = (),
    backups: Iterable[Document] = (),
    max_age_seconds: float | None = None,
) -> str:
    """Return the metrics of `environment` in Prometheus' text format; the names are those of docs/14-monitoring.md.

    `deploys`: what each release record says, `begun.json` with `report.json` over it; dry runs do not count. `stories`:
    the reports of backups, restores and drills. `backups`: the summaries of whole backups, where they can be listed.
    The order of neither matters. `max_age_seconds`: how old the newest backup may be; None where nobody said.
    """
    told = list(stories)
    made = [one.get("backup") for one in told if (one["kind"], one.get("verdict")) == ("backup", "done")]
    samples = [
        *_of_deploys([one for one in deploys if not one.get("dry_run")]),
        *_of_last("backup", [one for one in told if one["kind"] == "backup"]),
        *_of_backups([*backups, *filter(None, made)]),
        *_of_last("drill", [one for one in told if one["kind"] == "drill"]),
    ]
    if max_age_seconds is not None:
        samples.append(("backup_max_age_seconds", {}, max_age_seconds))
    return "".join(_lines(environment, samples))


def _of_deploys(deploys: list[Document]) -> Iterator[Sample]:
    started = [_seconds(one["started"]) for one in deploys if one.get("started")]
    if started:
        yield "deploy_started_timestamp_seconds", {}, max(started)
    yield from _of_last("deploy", deploys)


def _of_last(kind: str, records: list[Document]) -> Iterator[Sample]:
    """Yield the samples of the last of `records` that ended."""
    ended = [one for one in records if one.get("verdict")]
    if not ended:
        return
    last = max(ended, key=_end)
    yield f"{kind}_last_timestamp_seconds", {}, _end(last)
    yield f"{kind}_last_verdict", {"verdict": str(last["verdict"])}, 1
    if kind == "drill":
        if last.get("rto_seconds") is not None:
            yield "drill_last_seconds", {}, float(last["rto_seconds"])
        if last.get("backup"):
            yield "drill_last_bytes", {}, last["backup"]["bytes"]
    elif last.get("finished"):
        took = _end(last) - _seconds(last["started"])  # a Job of a cluster says no more
        yield f"{kind}_last_seconds", {}, last.get("seconds", took)


def _of_backups(backups: list[Document]) -> Iterator[Sample]:
    """Yield the samples of the newest of `backups`, which are whole: it is as old as the data that it has."""
    if backups:
        newest = max(backups, key=lambda one: _seconds(one["snapshot"]))
        yield "backup_last_success_timestamp_seconds", {}, _seconds(newest["snapshot"])
        if newest.get("bytes") is not None:  # a pod that is gone took that with it
            yield "backup_last_bytes", {}, newest["bytes"]


def _end(record: Document) -> float:
    """Return when a record ended; nobody saw the end of one that was killed, so that is when it began."""
    return _seconds(record.get("finished") or record["started"])


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _lines(environment: str, samples: Iterable[Sample]) -> Iterator[str]:
    for name, labels, value in samples:
        given = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"environment": environment, **labels}.items())
        yield f"# TYPE slipway_{name} gauge\nslipway_{name}{{{given}}} {value:.17g}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
