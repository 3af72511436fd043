"""Prometheus and Alertmanager of a kind cluster, as data: what is scraped is open, and has the names of the rules."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engines.kustomize import Document, render
from pipeline.monitoring.http_exporter import PORT
from pipeline.targets.kubernetes.vantage.inquiry import objects
from tests.pipeline.engines.rendered import component, one
from tests.pipeline.monitoring.promtool import RULES
from tests.services import ROOT

CONFIG = ROOT / "monitoring/kubernetes"
WATCHES = "k8s/cluster/monitoring"
# Those that only Compose has.
OF_COMPOSE = {"edge", "postgres", "redis", "logs", "traces"}


@cache
def prometheus() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CONFIG / "prometheus.yaml").read_text(encoding="utf-8"))
    return config


@cache
def watching() -> list[Document]:
    return render({"resources": [ROOT / WATCHES]})


def jobs() -> dict[str, dict[str, Any]]:
    return {one["job_name"]: one for one in prometheus()["scrape_configs"]}


class TestPrometheus:
    @pytest.mark.needs("promtool")
    def test_its_configuration_parses(self, tmp_path: Path) -> None:
        """But for how pods are found, which Debian's promtool does not know."""
        config = {**prometheus(), "rule_files": [str(RULES / "*.yaml")]}
        config["scrape_configs"] = [
            {key: value for key, value in one.items() if not key.startswith("kubernetes")} for one in jobs().values()
        ]
        path = tmp_path / "prometheus.yaml"
        path.write_text(re.sub(r"/var/run/\S*", __file__, yaml.safe_dump(config)), encoding="utf-8")
        done = subprocess.run(["promtool", "check", "config", path], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"

    @pytest.mark.needs("amtool")
    def test_alerts_go_where_the_routes_say(self) -> None:
        """To a receiver that there is: nobody, until somebody is named."""
        path = CONFIG / "alertmanager.yaml"
        command = ["amtool", "config", "routes", "test", f"--config.file={path}", "severity=page"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        names = {one["name"] for one in yaml.safe_load(path.read_text(encoding="utf-8"))["receivers"]}
        assert (done.returncode, {*done.stdout.strip().split(",")} <= names) == (0, True), done.stderr

    def test_has_every_job_that_a_rule_selects_by(self) -> None:
        """By its name: a job of another name would fire nothing."""
        texts = [path.read_text(encoding="utf-8") for path in RULES.glob("*.yaml")]
        named = {job for text in texts for names in re.findall(r'job=~?"([^"]+)"', text) for job in names.split("|")}
        assert named - OF_COMPOSE <= jobs().keys()

    def test_has_every_file_of_rules(self) -> None:
        """A new one is named in the kustomization, which knows no wildcard."""
        [rules] = [each for each in watching() if each["metadata"]["name"].startswith("rules-")]
        assert rules["data"] == {path.name: path.read_text(encoding="utf-8") for path in RULES.glob("*.yaml")}

    def test_asks_the_api_server_for_no_more_than_it_needs(self) -> None:
        """Pods by their label, and nodes."""
        found = [each for job in jobs().values() for each in job.get("kubernetes_sd_configs", ())]
        assert {each["role"] for each in found} == {"pod", "node"}
        assert all("label" in each["selectors"][0] for each in found if each["role"] == "pod")
        rules = one(watching(), "ClusterRole", "monitoring:prometheus")["rules"]
        granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
        assert granted == {(it, verb) for it in ("pods", "nodes") for verb in ("get", "list", "watch")} | {
            ("nodes/metrics", "get")
        }

    def test_keeps_as_much_as_the_objectives_look_back(self) -> None:
        """`window_days` of pyproject.toml: what is left of the budget is an average over it."""
        days = re.findall(r"\[(\d+)d\]", (RULES / "slo.yaml").read_text(encoding="utf-8"))
        spec = one(watching(), "Deployment", "prometheus")["spec"]["template"]["spec"]
        [kept] = [arg for arg in spec["containers"][0]["args"] if "retention.time" in arg]
        assert int(kept.partition("=")[2].removesuffix("d")) >= max(map(int, days))


class TestWays:
    @pytest.mark.parametrize(("part", "policy"), [("backend", "monitoring-to-backend"),
                                                  ("exporter", "monitoring-to-exporter")])  # fmt: skip
    def test_what_is_scraped_is_open_on_both_sides(self, part: str, policy: str) -> None:
        """Prometheus may go out to it, and it lets Prometheus in, by the port that it has."""
        documents = component("telemetry")
        [container] = one(documents, "Deployment", part)["spec"]["template"]["spec"]["containers"]
        [port] = [each["containerPort"] for each in container["ports"] if each["name"] == "metrics"]
        inside = one(documents, "NetworkPolicy", policy)["spec"]
        assert inside["podSelector"] == {"matchLabels": {"app.kubernetes.io/component": part}}
        [rule] = inside["ingress"]
        space = one(watching(), "Namespace", "monitoring")["metadata"]["name"]
        assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}}]
        assert rule["ports"] == [{"protocol": "TCP", "port": port}]
        out = [each for each in one(watching(), "NetworkPolicy", "prometheus")["spec"]["egress"]
               if part in str(each["to"])]  # fmt: skip
        assert {"protocol": "TCP", "port": port} in out[0]["ports"]

    def test_a_deploy_that_listens_is_let_in(self) -> None:
        """From wherever it asks: by the labels of its pod, and the port of Prometheus."""
        job, _, way = objects("watch-abc", "image", "http://prometheus.monitoring:9090", ())
        documents = watching()
        [rule] = one(documents, "NetworkPolicy", "prometheus")["spec"]["ingress"]
        [peer] = rule["from"]
        assert peer["namespaceSelector"] == {}
        assert peer["podSelector"]["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
        [container] = one(documents, "Deployment", "prometheus")["spec"]["template"]["spec"]["containers"]
        assert [each["port"] for each in rule["ports"]] == [each["containerPort"] for each in container["ports"]]
        [there] = way["spec"]["egress"][0]["to"]
        space = one(documents, "Namespace", "monitoring")["metadata"]["name"]
        assert there["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": space}

    def test_nothing_else_is_open(self) -> None:
        """In both directions, of every pod of the namespace."""
        spec = one(watching(), "NetworkPolicy", "deny-all")["spec"]
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def test_the_exporter_may_read_records_and_nothing_else(self) -> None:
        """No Secret, no log, no other ConfigMap; and change nothing."""
        documents = render({"resources": [ROOT / "k8s/bootstrap/staging"]})
        rules = one(documents, "Role", "exporter")["rules"]
        assert {resource for rule in rules for resource in rule["resources"]} == {"configmaps", "jobs", "pods"}
        assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list"}
        [configmaps] = [rule for rule in rules if rule["resources"] == ["configmaps"]]
        assert configmaps["resourceNames"] == ["deploy-facts", "backup-facts"]
        [subject] = one(documents, "RoleBinding", "exporter")["subjects"]
        assert subject["namespace"] == one(documents, "ServiceAccount", "exporter")["metadata"]["namespace"]

    def test_the_service_of_a_kind_cluster_belongs_to_the_administrator(self) -> None:
        """So that no deploy removes it as something that its release has no more."""
        documents = render({"resources": [ROOT / WATCHES / "service"]})
        owners = {each["metadata"]["labels"].get("app.kubernetes.io/managed-by") for each in documents}
        assert owners == {"administrator"}


def test_the_exporter_needs_what_is_mounted_and_nothing_else(tmp_path: Path) -> None:
    """Python's image has neither the pipeline nor any package."""
    documents = component("telemetry")
    spec = one(documents, "Deployment", "exporter")["spec"]["template"]["spec"]
    [volume] = [each["configMap"] for each in spec["volumes"] if "configMap" in each]
    for item in volume["items"]:
        path = tmp_path / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one(documents, "ConfigMap", volume["name"])["data"][item["key"]], encoding="utf-8")
    _, *flags, _, module = spec["containers"][0]["command"]
    path = f"sys.path[:] = [{str(tmp_path)!r}, *filter(lambda it: 'site-packages' not in it, sys.path)]"
    shown = "from pipeline.monitoring.http_exporter import PORT; print(PORT)"
    done = subprocess.run([sys.executable, "-I", *flags, "-c", f"import sys; {path}; import {module}; {shown}"],
                          check=False, capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{PORT}\n", "")
