"""What a killed story about data left: an open record, and perhaps a database beside, half a swap, a second server."""

from __future__ import annotations

import logging

from pipeline.data.records import DataRecords, facts_of
from pipeline.data.report import DataReport, write_report
from pipeline.errors import DeployFailed, SlipwayError
from pipeline.proof.cleaning import clean_up
from pipeline.releases.records import Record
from pipeline.targets import Target

__all__ = ["died", "heal_stories", "note_deaths"]

log = logging.getLogger(__name__)

WRITES = "*-writes.jsonl"  # of its proof, in what serves now
SWAPS = ("swap", "swap back")  # the stages of a restore that may be half done
LEAVING = ("restore", "upgrade")  # the kinds that may leave something beside their record


def died(record: Record, env: str) -> str:
    """Return what a record says of a story that was killed, with what mends it."""
    kind, left = facts_of(record)["kind"], ""
    if kind in LEAVING:
        left = f": `nox -s deploy -- {env}` cleans up what it left"
    return f"the {kind} of record {record.number} (data) died in stage `{record.stage}`{left}"


def note_deaths(target: Target, records: DataRecords) -> None:
    """Write the reports that killed backups and drills lack; what they had begun, the next run of theirs removes."""
    for record in records.dead():
        if facts_of(record)["kind"] not in LEAVING:
            _report(target, record, f"it died in stage `{record.stage}`")


def heal_stories(target: Target, records: DataRecords) -> bool:
    """Clean up after killed restores and upgrades; return whether there were any.

    Call it only under the environment's lock. Before its swap, a restored database is dropped. A swap that was begun is
    done: what it wanted serves then. A new server that has not taken the place of the old one is removed. Raise
    `DeployFailed` where that cannot be done.
    """
    dead = [record for record in records.dead() if facts_of(record)["kind"] in LEAVING]
    for record in dead:
        log.warning(died(record, target.env.name).partition(": `nox")[0])
        try:
            reason = (_heal if facts_of(record)["kind"] == "restore" else _heal_upgrade)(target, record)
        except SlipwayError as error:
            left = f"what it left is still there: {error.problems[0]}"
            if facts_of(record)["kind"] == "upgrade":  # whoever went on might take half a copy for the data
                raise DeployFailed(left) from error
            log.warning(left)
            continue  # the record stays open, and the next command tries again
        for journal in record.folder.glob(WRITES):
            clean_up(journal, target.url, target.fleet.token())
        _report(target, record, reason)
    return bool(dead)


def _heal(target: Target, record: Record) -> str:
    """Clean up after one restore; return what happened, and what is there now."""
    facts, reason = facts_of(record), f"it died in stage `{record.stage}`"
    before, wanted = facts.get("before"), facts.get("wanted")
    if record.stage in SWAPS:
        before = target.backups.run("swap", facts["serving"], facts["wanted"], told=log.info)["swapped"]["before"]
    if record.stage in SWAPS or before:
        line = f"{reason}: what serves now was not proved, and the database that it took the place of is {before}"
        log.warning(line)
        return line
    if wanted and not facts.get("beside"):  # one that somebody asked for by its name may be whole
        target.backups.run("drop", wanted, told=log.info)
        return f"{reason}: nothing that serves was touched, and what was restored is dropped"
    return f"{reason}: nothing that serves was touched"


def _heal_upgrade(target: Target, record: Record) -> str:
    """Clean up after one move to a new major; return what happened, and what serves now."""
    facts, reason = facts_of(record), f"it died in stage `{record.stage}`"
    upgrade = target.database.upgrade()
    if record.stage == "switch back":
        upgrade.switch_back(facts["place"])
        line = f"{reason}: PostgreSQL {facts['old']} serves again; what the new one had is in {facts['place']}"
    elif upgrade.switched(facts["place"]):
        upgrade.go_on(facts["place"])
        line = (
            f"{reason}: PostgreSQL {facts['new']} serves now, which was not proved; the data of before is kept in"
            f" {facts['before']}: `{facts['removal']}` removes it"
        )
    else:
        upgrade.abandon(facts["place"] if facts.get("begun") else "")
        return f"{reason}: PostgreSQL {facts['old']} serves as before, and what was made beside it is removed"
    log.warning(line)
    return line


def _report(target: Target, record: Record, reason: str) -> None:
    facts = facts_of(record)
    report = DataReport(
        kind=facts["kind"],
        environment=target.env.name,
        target=target.env.target,
        number=record.number,
        verdict="interrupted",
        said=f"The {facts['kind']} of {target.env.name} was killed: {reason}",
        reason=reason,
        started=record.started or "",
        finished=None,
        seconds=None,
        backup=None,
    )
    write_report(record.folder, report)
