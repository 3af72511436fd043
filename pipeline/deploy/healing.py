"""What a killed deploy left: processes, writes of its proof, a record without an end."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.data.healing import heal_stories
from pipeline.data.records import DataRecords
from pipeline.deploy.chapter import Chapter, source_of
from pipeline.deploy.evidence import write_evidence
from pipeline.proof.cleaning import clean_up
from pipeline.proof.report import WATCHING
from pipeline.releases.lock import held_by
from pipeline.releases.records import Records, read_json
from pipeline.targets import Target

__all__ = ["JOURNAL", "WATCH", "clean_up_writes", "heal", "left_by_watch", "never_ended"]

log = logging.getLogger(__name__)

JOURNAL = "{}-writes.jsonl"
WATCH = "watch"  # names its journal, and the lock that whoever watches holds
LATE = timedelta(minutes=10)  # for its last words, and for the clocks of two machines


def heal(target: Target, records: Records, data: DataRecords) -> bool:
    """Clean up after a killed deploy, restore, upgrade or machine; return whether there was anything to clean up.

    That can be processes, writes, open records, and half a swap of databases.
    """
    healed = target.fleet.heal()
    healed |= heal_stories(target, data)
    killed = records.killed()
    for record in killed:
        log.warning(f"the deploy of release record {record.number} died in stage `{record.stage}`: cleaning up")
        clean_up_writes(target, record.folder)
        reason = f"the deploy died in stage `{record.stage}`, without a report"
        chapter = Chapter(record, source_of(record), verdict="interrupted", reason=reason)
        write_evidence(record.folder, chapter.report(target))
        records.publish(record)
    return healed or bool(killed)


def clean_up_writes(target: Target, folder: Path) -> None:
    """Remove the synthetic writes that the proofs of the record in `folder` have left in the service.

    Those of a watch that goes on stay: it still asks for them.
    """
    for journal in folder.glob(JOURNAL.format("*")):
        if journal.name != JOURNAL.format(WATCH) or left_by_watch(folder):
            clean_up(journal, target.url, target.fleet.token())


def left_by_watch(folder: Path) -> bool:
    """Return whether a watch of the record in `folder` was killed on this machine: its journal is there, and not it."""
    return (folder / JOURNAL.format(WATCH)).exists() and held_by(folder / WATCH) is None


def never_ended(folder: Path, now: datetime) -> bool:
    """Return whether a watch of the record in `folder` was killed, wherever that was: its time is over, and not it.

    Only correct while the environment's lock is free: what waits for that, or goes back, takes longer.
    """
    watch = read_json(folder / "report.json").get("watch") or {}
    if watch.get("outcome") != WATCHING or not watch.get("until") or held_by(folder / WATCH):
        return False
    return now > datetime.fromisoformat(watch["until"]) + LATE
