"""What the records of an environment on this machine say, for the exporter that makes metrics of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.config.project import ComposeEnvironment, Environment, Project
from pipeline.data.records import DataRecords
from pipeline.releases.records import Record, Records, read_json
from pipeline.system.files import write_whole
from pipeline.system.protection import best_effort

__all__ = ["FACTS", "FOLDER", "leave_metrics"]

FOLDER, FACTS = "metrics", "facts.json"  # below the environment's state
OF_DEPLOY = ("started", "finished", "seconds", "verdict", "dry_run")
OF_STORY = ("kind", "started", "finished", "seconds", "verdict", "rto_seconds")
OF_BACKUP = ("snapshot", "bytes")


def leave_metrics(project: Project, env: Environment) -> None:
    """Write what `pipeline.monitoring.exposition` makes metrics of, whole; whatever goes wrong is only said.

    Only on Compose: on Kubernetes an exporter reads the records in the cluster, and `local` has none.
    """
    if not isinstance(env, ComposeEnvironment):
        return
    with best_effort():
        releases, data = Records(project.state(env.name) / "releases"), DataRecords.of(project, env.name)
        facts = {
            "environment": env.name,
            "deploys": [_some(_document(record), OF_DEPLOY) for record in releases.all()],
            "stories": [_story(_document(record)) for record in data.all() if record.verdict],
            "max_age_seconds": env.backups.seconds if env.backups else None,
        }
        folder = project.state(env.name) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the exporter is another user; nothing in there is a secret
        write_whole(folder / FACTS, json.dumps(facts), mode=0o644)


def _document(record: Record) -> dict[str, Any]:
    return {**read_json(record.folder / "begun.json"), **read_json(record.folder / "report.json")}


def _story(document: Mapping[str, Any]) -> dict[str, Any]:
    backup = document.get("backup")
    return {**_some(document, OF_STORY), "backup": _some(backup, OF_BACKUP) if isinstance(backup, Mapping) else None}


def _some(document: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: document[name] for name in names if name in document}
