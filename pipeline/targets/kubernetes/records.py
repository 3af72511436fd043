"""The release records of an environment, kept in its cluster: any machine that may deploy can see and undo.

A ConfigMap for each: what a deploy began with, its report, and the whole release (rendered manifests, digests; nothing
secret). The newest ten are kept, and those that one can roll back to. A copy lies below `.slipway/ENV`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.engines.kubectl import Kubectl, Object, Unreachable, name_of
from pipeline.releases.records import Record, Records, read_json
from pipeline.system.files import write_whole
from pipeline.targets.kubernetes.release import Release, Releases

__all__ = ["ClusterRecords"]

LABEL = "slipway/record"
KEPT = 10
PARTS = ("begun.json", "report.json", "report.md")
RELEASE = "release.json"
LARGEST_BYTES = 900_000  # a ConfigMap may have 1 MiB
NAMESPACE_MARK = "kube-root-ca.crt"  # every namespace has this ConfigMap, and with another life another one


class ClusterRecords(Records):
    """See `Records`. `retain`: how many proved releases one can go back to."""

    def __init__(self, folder: Path, releases: Releases, kubectl: Kubectl) -> None:
        super().__init__(folder)
        self.releases, self.kubectl = releases, kubectl

    def refresh(self) -> None:
        """Bring what the cluster knows to this machine. What is here of a namespace that is gone is forgotten."""
        found = self.kubectl.get("configmaps", f"--selector={LABEL}")
        self._forget_another_life()
        for one in found:
            folder = self.folder / one["metadata"]["labels"][LABEL]
            folder.mkdir(parents=True, exist_ok=True)
            for name in PARTS:
                if name in one["data"]:
                    write_whole(folder / name, one["data"][name])
            if RELEASE in one["data"]:
                self.releases.keep(Release.load(json.loads(one["data"][RELEASE])))

    def begin(self, facts: dict[str, Any]) -> Record:
        """Take the next number, here and there."""
        record = super().begin(facts)
        self.publish(record)
        return record

    def note(self, record: Record, **facts: Any) -> None:
        """Add what is known."""
        super().note(record, **facts)
        with contextlib.suppress(Unreachable):  # the next one says it, too
            self.publish(record)

    def publish(self, record: Record) -> None:
        """Write it to the cluster."""
        begun = read_json(record.folder / "begun.json")
        if begun.get("dry_run"):
            return
        data = {name: (record.folder / name).read_text() for name in PARTS if (record.folder / name).exists()}
        release = begun.get("release")
        if release and self.releases.knows(release):
            data[RELEASE] = self.releases.path(release).read_text()
        if sum(map(len, data.values())) > LARGEST_BYTES:
            data["report.json"] = _shortened(data["report.json"])
        self.kubectl.ask(
            "apply", "--server-side", "--field-manager=slipway", "--force-conflicts", "--filename=-",
            given=json.dumps(_configmap(record.number, data)),
        )  # fmt: skip

    def prune(self) -> None:
        """Forget the oldest, here and there."""
        super().prune()
        kept = {record.number for record in self.all()[-KEPT:]}
        proved = {
            name: record.number for record in self.all() if record.verdict == "proved" and (name := record.release)
        }
        kept |= {proved[name] for name in self.retained(self.releases.retain)}
        there = self.kubectl.get("configmaps", f"--selector={LABEL}")
        gone = [name_of(one) for one in there if int(one["metadata"]["labels"][LABEL]) not in kept]
        if gone:
            self.kubectl.ask("delete", "configmap", "--ignore-not-found", *gone)

    def _forget_another_life(self) -> None:
        mark = self.kubectl.get("configmap", NAMESPACE_MARK)
        life = mark[0]["metadata"]["uid"] if mark else ""
        path = self.folder.parent / "namespace"
        if path.exists() and path.read_text() != life:
            for folder in (self.folder, self.releases.folder):
                shutil.rmtree(folder, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, life)


def _configmap(number: int, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"slipway-release-{number}",
            "labels": {
                "app.kubernetes.io/part-of": "slipway",
                "app.kubernetes.io/managed-by": "slipway",
                LABEL: str(number),
            },
        },
        "data": data,
    }


def _shortened(text: str) -> str:
    """A report without the seconds of its timeline, which are most of it; the verdict and the figures stay."""
    report: dict[str, Any] = json.loads(text)
    for part in (report, report.get("rollback") or {}):
        if part.get("traffic"):
            part["traffic"]["timeline"] = []
    return json.dumps(report, indent=2)
