"""What a deploy leaves in the cluster: its record, and what the exporter there makes metrics of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pipeline.config.project import KubernetesEnvironment
from pipeline.engines.kubectl import Kubectl
from pipeline.monitoring.cluster import scrape
from pipeline.releases.records import write_json
from pipeline.targets.kubernetes.records import ClusterRecords
from pipeline.targets.kubernetes.release import KeptReleases
from tests.project import PROJECT

BEGAN = {"started": "2026-11-28T01:00:00Z", "stage": "plan", "release": None}


class Cluster:
    """What is applied to a cluster: the newest of each name."""

    def __init__(self) -> None:
        self.there: dict[str, dict[str, Any]] = {}

    def ask(self, *arguments: str, given: str) -> str:
        assert arguments[0] == "apply"
        self.there |= {one["metadata"]["name"]: one for one in json.loads(given)["items"]}
        return ""


def records(folder: Path, cluster: Cluster, **table: Any) -> ClusterRecords:
    env = PROJECT.environment("kind").model_copy(update=table)
    assert isinstance(env, KubernetesEnvironment)
    return ClusterRecords(folder / "releases", KeptReleases(folder / "artifacts", 5), cast("Kubectl", cluster), env)


class TestFacts:
    def test_are_told_from_the_first_moment_to_the_last(self, tmp_path: Path) -> None:
        """So that a deploy that was killed is seen to have begun."""
        cluster = Cluster()
        kept = records(tmp_path, cluster)
        record = kept.begin(BEGAN)
        assert cluster.there.keys() == {"slipway-release-1", "deploy-facts"}
        asked = {"api/v1:configmaps/deploy-facts": cluster.there["deploy-facts"]}
        text = scrape(asked.get)
        assert "slipway_deploy_started_timestamp_seconds" in text
        assert "slipway_deploy_last" not in text
        write_json(
            record.folder / "report.json", {"finished": "2026-11-28T01:02:00Z", "seconds": 90, "verdict": "proved"}
        )
        kept.publish(record)
        text = scrape({"api/v1:configmaps/deploy-facts": cluster.there["deploy-facts"]}.get)
        assert 'slipway_deploy_last_verdict{environment="kind",verdict="proved"} 1' in text
        assert 'slipway_deploy_last_seconds{environment="kind"} 90' in text

    def test_say_how_old_a_backup_may_be_where_somebody_said(self, tmp_path: Path) -> None:
        """Else nobody promised any."""
        cluster = Cluster()
        records(tmp_path / "without", cluster, backups=None).begin(BEGAN)
        assert json.loads(cluster.there["deploy-facts"]["data"]["facts.json"])["max_age_seconds"] is None

    def test_are_not_those_of_a_dry_run(self, tmp_path: Path) -> None:
        """Which shipped nothing."""
        cluster = Cluster()
        records(tmp_path, cluster).begin({**BEGAN, "dry_run": True})
        assert cluster.there == {}

    def test_are_removed_with_the_records(self, tmp_path: Path) -> None:
        """By the label of what deploys apply; by the other one no deploy takes them for a leftover."""
        cluster = Cluster()
        records(tmp_path, cluster).begin(BEGAN)
        assert cluster.there["deploy-facts"]["metadata"]["labels"] == {
            "app.kubernetes.io/part-of": "slipway", "app.kubernetes.io/managed-by": "slipway", "slipway/facts": "true"
        }  # fmt: skip
