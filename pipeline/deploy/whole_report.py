"""The report of a deploy with all that others saw of it: the engine, the vantage, the service itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from pipeline.deploy.chapter import Chapter
from pipeline.proof.report import Report
from pipeline.releases.records import Records
from pipeline.system.progress import Progress
from pipeline.system.protection import best_effort
from pipeline.system.text import now
from pipeline.targets import Target

__all__ = ["whole_report"]

log = logging.getLogger(__name__)


def whole_report(
    chapter: Chapter, target: Target, records: Records, progress: Progress, degraded: Callable[[str], list[str]]
) -> Report:
    """Return the report of the deploy, which ends now, with what others saw meanwhile; that is logged, too.

    `degraded` lists the degraded checks of the service at a URL.
    """
    report, inside, remarks = chapter.report(target), None, list[str]()
    if report.traffic:
        with best_effort():
            inside = target.watch.second_view(report.traffic.failed, report.traffic.sent)
        with best_effort():
            remarks = target.watch.remarks()
    with best_effort():
        remarks += degraded(report.url) if report.verdict != "failed" else []
    if inside:
        log.info(f"from inside: {inside[0]}")
    for line in remarks:
        log.info(f"meanwhile {line}")
    undoing = report.rollback.stages if report.rollback else ()
    stages = tuple(progress.stages[: -1 - len(undoing)])  # the last one, `record`, is not over
    before = records.before(report.release) if chapter.stays else None
    back = before.release if before else None
    ended = replace(report, finished=now(), seconds=chapter.seconds, stages=stages)
    return replace(ended, inside=inside, remarks=(*report.remarks, *remarks), back=back)
