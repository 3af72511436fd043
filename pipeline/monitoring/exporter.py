"""The exporter of a Compose environment: what its deploys, backups and drills leave, as metrics.

`python -m pipeline.monitoring.exporter FACTS BACKUPS`, in a container that has Python and this package alone: FACTS is
the file that the pipeline writes, BACKUPS the folder of the scheduled backups, of which no pipeline knows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.monitoring.exposition import exposition
from pipeline.monitoring.http_exporter import serve

__all__ = ["scrape"]


def scrape(facts: Path, backups: Path) -> str:
    """Return the metrics of now; nothing before the first deploy."""
    try:
        told: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ""
    told["stories"] = [*told["stories"], *_scheduled(backups)]
    return exposition(**told, backups=list(_whole(backups)))


def _scheduled(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield how the last backup of the schedule ended, as a report would say it."""
    record = folder / "schedule.json"
    with suppress(FileNotFoundError, ValueError):  # none yet, or broken: then the schedule begins anew
        ended = json.loads(record.read_text(encoding="utf-8"))
        finished = datetime.fromtimestamp(record.stat().st_mtime, UTC)  # it is written then
        verdict = "failed" if ended["code"] else "done"
        yield {"kind": "backup", "started": ended["started"], "finished": finished.isoformat(), "verdict": verdict}


def _whole(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the newest whole backup in `folder`: their names begin with their times."""
    for manifest in sorted(folder.glob("[0-9]*/manifest.json"), reverse=True):
        with suppress(FileNotFoundError, ValueError):  # it is being removed, or broken
            found = json.loads(manifest.read_text(encoding="utf-8"))
            yield {"snapshot": found["snapshot"], "bytes": found["bytes"]}
            return


if __name__ == "__main__":
    serve(partial(scrape, Path(sys.argv[1]), Path(sys.argv[2])))
