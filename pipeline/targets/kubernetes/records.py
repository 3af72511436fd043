"""The release records of an environment, kept in its cluster: any machine that may deploy can see and undo.

There is a ConfigMap for each record: what a deploy began with, its report, and the whole release (rendered manifests,
digests; nothing secret). The newest ten are kept, and those that one can roll back to. A copy is below `.slipway/ENV`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config.project import KubernetesEnvironment
from pipeline.engines.kubectl import Kubectl, Object, Unreachable, as_list, name_of
from pipeline.monitoring.cluster import DEPLOY_FACTS, FACTS
from pipeline.releases.records import Record, Records, read_json
from pipeline.system.files import write_whole
from pipeline.targets.kubernetes.release import KeptReleases, Release

__all__ = ["NAMESPACE_MARK", "ClusterRecords", "facts_object"]

LABEL, FACTS_LABEL = "slipway/record", "slipway/facts"
OURS = {"app.kubernetes.io/part-of": "slipway", "app.kubernetes.io/managed-by": "slipway"}
OF_DEPLOY = ("started", "finished", "seconds", "verdict", "dry_run")
KEPT = 10
PARTS = ("begun.json", "report.json", "report.md")
RELEASE = "release.json"
LARGEST_BYTES = 900_000  # a ConfigMap may have 1 MiB
NAMESPACE_MARK = "kube-root-ca.crt"  # every namespace has this ConfigMap; a namespace that was made anew has a new one


class ClusterRecords(Records):
    """See `Records`. `releases.retain`: how many proved releases one can go back to."""

    def __init__(self, folder: Path, releases: KeptReleases, kubectl: Kubectl, env: KubernetesEnvironment) -> None:
        super().__init__(folder)
        self.releases, self.kubectl, self.env = releases, kubectl, env

    def refresh(self) -> None:
        """Copy what the cluster knows to this machine; forget what is here of a namespace that is gone."""
        configmaps = self.kubectl.get("configmaps", f"--selector={LABEL}")
        self._forget_another_life()
        for configmap in configmaps:
            folder = self.folder / configmap["metadata"]["labels"][LABEL]
            folder.mkdir(parents=True, exist_ok=True)
            for name in PARTS:
                if name in configmap["data"]:
                    write_whole(folder / name, configmap["data"][name])
            if RELEASE in configmap["data"]:
                self.releases.keep(Release.load(json.loads(configmap["data"][RELEASE])))

    def begin(self, facts: dict[str, Any]) -> Record:
        """Take the next number, on this machine and in the cluster."""
        record = super().begin(facts)
        self.publish(record)
        return record

    def note(self, record: Record, **facts: Any) -> None:
        """Add `facts` to `record`, on this machine and, if it can be reached, in the cluster."""
        super().note(record, **facts)
        with contextlib.suppress(Unreachable):  # the next note publishes these facts, too
            self.publish(record)

    def publish(self, record: Record) -> None:
        """Write `record` to the cluster, unless it is that of a dry run."""
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
            given=as_list([_configmap(record.number, data), facts_object(DEPLOY_FACTS, self._facts())]),
        )  # fmt: skip

    def prune(self) -> None:
        """Remove the oldest records, on this machine and in the cluster."""
        super().prune()
        kept = {record.number for record in self.all()[-KEPT:]}
        stayed = {record.release: record.number for record in self.all() if record.stayed}
        kept |= {stayed[name] for name in self.retained(self.releases.retain)}
        there = self.kubectl.get("configmaps", f"--selector={LABEL}")
        gone = [name_of(one) for one in there if int(one["metadata"]["labels"][LABEL]) not in kept]
        if gone:
            self.kubectl.ask("delete", "configmap", "--ignore-not-found", *gone)

    def _facts(self) -> dict[str, Any]:
        """Return what the exporter in the cluster makes metrics of."""
        newest = self.all()[-KEPT:]
        known = [{**read_json(one.folder / "begun.json"), **read_json(one.folder / "report.json")} for one in newest]
        return {
            "environment": self.env.name,
            "deploys": [{name: one[name] for name in OF_DEPLOY if name in one} for one in known],
            "max_age_seconds": self.env.backups.seconds if self.env.backups else None,
        }

    def _forget_another_life(self) -> None:
        mark = self.kubectl.get("configmap", NAMESPACE_MARK)
        life = mark[0]["metadata"]["uid"] if mark else ""
        path = self.folder.parent / "namespace"
        if path.exists() and path.read_text() != life:
            for folder in (self.folder, self.releases.folder):
                shutil.rmtree(folder, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, life)


def facts_object(name: str, facts: Mapping[str, Any]) -> Object:
    """Return the ConfigMap `name` with `facts` for the exporter in the cluster."""
    metadata = {"name": name, "labels": {**OURS, FACTS_LABEL: "true"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {FACTS: json.dumps(facts)}}


def _configmap(number: int, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"slipway-release-{number}", "labels": {**OURS, LABEL: str(number)}},
        "data": data,
    }


def _shortened(text: str) -> str:
    """Return a report without the seconds of its timeline, which are most of it; the verdict and the figures stay."""
    report: dict[str, Any] = json.loads(text)
    for part in (report, report.get("rollback") or {}):
        if part.get("traffic"):
            part["traffic"]["timeline"] = []
    return json.dumps(report, indent=2)
