"""The files of `monitoring/compose` as data: they agree with the rules, the objectives and the services."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.monitoring.made import rule_files
from pipeline.monitoring.problems import rules_in
from tests.project import PROJECT

ROOT = PROJECT.root
PROMETHEUS = ROOT / "monitoring/compose/prometheus.yaml"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.monitoring.yml").read_text("utf-8"))["services"]


def read(path: Path) -> dict[str, Any]:
    """Return the YAML in PATH."""
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


JOBS = {job["job_name"]: job for job in read(PROMETHEUS)["scrape_configs"]}


class TestPrometheus:
    @pytest.mark.needs("promtool")
    def test_accepts_its_configuration(self, tmp_path: Path) -> None:
        """With the rules, where they are in its container."""
        text = PROMETHEUS.read_text("utf-8").replace("/etc/prometheus/rules", str(ROOT / "monitoring/rules"))
        (tmp_path / "prometheus.yaml").write_text(text)
        done = subprocess.run(
            ["promtool", "check", "config", tmp_path / "prometheus.yaml"], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def test_scrapes_each_job_that_a_rule_selects(self) -> None:
        """And is told when one of its own is down: the rule about that names them all."""
        rules = [rule["expr"] for path in rule_files(ROOT) for rule in rules_in(path)]
        selected = {job for rule in rules for jobs in re.findall(r'job=~?"([^"]+)"', rule) for job in jobs.split("|")}
        assert selected == JOBS.keys() - {"prometheus"}

    def test_asks_only_who_is_there(self) -> None:
        """Each static target is a service of the profile, or the edge; the replicas are found by their name."""
        hosts = {
            target.partition(":")[0]
            for job in JOBS.values()
            for config in job.get("static_configs", ())
            for target in config["targets"]
        }
        assert hosts - {"localhost", "frontend"} <= SERVICES.keys()
        assert JOBS["backend"]["dns_sd_configs"] == [
            {"names": ["backend"], "type": "A", "port": 9090, "refresh_interval": "5s"}
        ]

    def test_keeps_more_than_the_window_of_the_objectives(self) -> None:
        """Else the budget would be that of a shorter one."""
        [days] = re.findall(r"retention\.time=(\d+)d", " ".join(SERVICES["prometheus"]["command"]))
        assert int(days) > PROJECT.slo.window_days


class TestCollector:
    def test_each_part_is_used(self) -> None:
        """Receivers, processors, exporters, extensions: one that nothing uses is a mistake."""
        config = read(ROOT / "monitoring/compose/collector.yaml")
        for kind in ("receivers", "processors", "exporters"):
            used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
            assert used == config[kind].keys(), kind
        assert set(config["service"]["extensions"]) == config["extensions"].keys()

    def test_sends_to_services_of_the_profile(self) -> None:
        """By their names in the internal network."""
        text = (ROOT / "monitoring/compose/collector.yaml").read_text("utf-8")
        assert set(re.findall(r"http://([a-z]+):", text)) == {"logs", "traces", "prometheus"} <= SERVICES.keys()


class TestGrafana:
    def test_is_given_what_is_there(self) -> None:
        """The data source that each panel names, and the folder of the dashboards."""
        [source] = read(ROOT / "monitoring/grafana/datasources/prometheus.yaml")["datasources"]
        for path in (ROOT / "monitoring/dashboards").glob("*.json"):
            assert set(re.findall(r'"uid": "(\w+)"', path.read_text("utf-8"))) == {source["uid"], path.stem}
        [provider] = read(ROOT / "monitoring/grafana/dashboards/files.yaml")["providers"]
        mounts = [volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"]]
        assert ["./monitoring/dashboards", provider["options"]["path"]] in mounts
