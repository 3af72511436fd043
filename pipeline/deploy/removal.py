"""What proofs wrote and no request can remove: a command of the release does, near the database."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pipeline.config.requests import COMMAND
from pipeline.deploy.chapter import Chapter
from pipeline.deploy.healing import WATCH
from pipeline.errors import SlipwayError
from pipeline.proof.report import WATCHING
from pipeline.proof.results import TrafficResult
from pipeline.proof.smoke import Smoked
from pipeline.releases.lock import held_by
from pipeline.releases.model import Artifact
from pipeline.releases.records import Records, read_json
from pipeline.system.text import answer_in
from pipeline.targets import Database

__all__ = ["remove_known", "remove_rows", "remove_written", "unremoved"]

log = logging.getLogger(__name__)

MODULE = "backend.synthetic"
# The database's clock may be ahead of ours, or ours was set back since: a row of a proof that was killed would stay.
AHEAD = timedelta(days=1)
AT_ONCE = 2000  # ids: on a cluster they are in a Secret, which has a largest size


def remove_written(database: Database, chapter: Chapter, records: Records) -> str | None:
    """Remove what the proofs of this deploy wrote, and what an earlier one left; return what prevented that.

    Where the ids are not known, everything synthetic goes: the lock keeps other proofs away.
    """
    left = _left_over(chapter, records)
    if chapter.new is None:  # nothing was built: whether there is a command is not known
        return left
    first = (chapter.new, chapter.old) if chapter.stays else (chapter.old, chapter.new)  # the one that was not refused
    release = next((each for each in first if each and _has_command(each)), None)
    if release is None:
        return None
    results = [chapter.tried or Smoked(), *(one.result for one in (chapter.proof, chapter.back) if one and one.began)]
    return remove_rows(database, release, results, known=not left)


def remove_rows(
    database: Database, release: Artifact, results: Sequence[Smoked | TrafficResult | None], *, known: bool = True
) -> str | None:
    """Remove what was written by what has the `results`, by the command of `release`, where it has one.

    `known`: nothing else was written. Return what prevented it.
    """
    if not _has_command(release):
        return None
    ids = [ident for result in results if result for ident in result.ids]
    known = known and all(result and not result.unplaced for result in results)
    if known and not ids:
        return None
    try:
        _run(database, release, ids, () if known else ("--before", (datetime.now(UTC) + AHEAD).isoformat()))
    except SlipwayError as error:
        return error.problems[0]
    return None


def remove_known(database: Database, release: Artifact, result: TrafficResult | None) -> str | None:
    """Remove what the traffic with this `result` wrote, and nothing else; return why some of it may be there still.

    For who does not hold the lock: what is older than this moment may be somebody else's.
    """
    if not _has_command(release):
        return None
    if result and result.ids:
        try:
            _run(database, release, result.ids, ())
        except SlipwayError as error:
            return error.problems[0]
    return None if result and not result.unplaced else "the watch's traffic ended before it knew what it wrote"


def unremoved(records: Records) -> str | None:
    """Return why rows that a proof wrote are still there, as the newest record says; None where it does not."""
    reports = (read_json(record.folder / "report.json") for record in reversed(records.all()))
    newest: dict[str, str | None] = next(filter(None, reports), {})
    return newest.get("unremoved")


def _has_command(release: Artifact) -> bool:
    return any(spec.remove == COMMAND for spec in release.requests)


def _left_over(chapter: Chapter, records: Records) -> str | None:
    """Return why the deploy before this one left rows; None where it did not."""
    before = [record for record in records.all() if record.number < chapter.record.number]
    report = read_json(before[-1].folder / "report.json") if before else {}
    if report.get("verdict") == "interrupted" and report.get("finished") is None:
        return f"deploy {before[-1].number} was killed"
    if (report.get("watch") or {}).get("outcome") == WATCHING and held_by(before[-1].folder / WATCH) is None:
        return f"the watch of deploy {before[-1].number} was killed"
    left: str | None = report.get("unremoved")
    return left


def _run(database: Database, release: Artifact, ids: Sequence[str], when: Sequence[str]) -> None:
    """Run the command, with a part of `ids` at a time. Raise `SlipwayError` where it does not do what it should."""
    parts = [ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)] or [()]
    removed = 0
    for number, part in enumerate(parts):
        given = "".join(f"{ident}\n" for ident in part)
        said = database.command(release, MODULE, "remove", *(when if number == 0 else ()), stdin=given)
        removed += _number(said)
    log.info(f"removed {removed} synthetic rows")


def _number(said: str) -> int:
    """Return the number in `said`, the output of the command. Raise `SlipwayError` where there is none."""
    removed = answer_in(said, "removed")
    if isinstance(removed, int):
        return removed
    raise SlipwayError(f"python -m {MODULE} printed `{said.strip()[-200:]}` instead of a number as JSON")
