"""The collectors' configurations, as data: what a collector would refuse at its start is refused in `lint`, by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.engines.kustomize import Document, render
from pipeline.monitoring.collector import collector_files, collector_problems
from tests.pipeline.engines.rendered import component, one
from tests.services import ROOT

FILE = "monitoring/kubernetes/collector.yaml"
LOGS = "k8s/bootstrap/logs"


def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    return loaded


@cache
def agent() -> list[Document]:
    """What an administrator applies."""
    return render({"resources": [ROOT / LOGS]})


def problems_of(text: str, root: Path) -> list[str]:
    """What is wrong with TEXT, as the configuration of the project at ROOT."""
    (root / FILE).parent.mkdir(parents=True, exist_ok=True)
    (root / FILE).write_text(text, encoding="utf-8")
    return collector_problems(root)


class TestCollectorProblems:
    def test_are_none(self) -> None:
        """Of any configuration in monitoring/."""
        assert ROOT / FILE in collector_files(ROOT)
        assert collector_problems(ROOT) == []

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("  file_log:\n", "  file_lag:\n", "receivers.file_lag: no component `file_lag`"),
            ("start_at: beginning", "starts_at: beginning", "receivers.file_log: it has no `starts_at`"),
            ("queue_size: 200000", "size: 200000", "exporters.otlp_http/logs.sending_queue: it has no `size`"),
            ("receivers: [file_log]", "receivers: [filelog]", "service: receivers: no `filelog`"),
            ("extensions: [file_storage, ", "extensions: [", "extensions.file_storage: no pipeline uses it"),
            ("type: recombine", "type: combine", "receivers.file_log: operator 3: no `combine`"),
            ("storage: file_storage\n", "storage: disk\n", "receivers.file_log: storage: no `disk`"),
            ("\nprocessors:", "\nprocessor:", "there is no section `processor`"),
            ("receivers:\n", "receivers: {\n", "not valid YAML"),
            ("service:\n", "servic:\n", "must have tables"),
        ],
    )
    def test_name_what_is_misspelt(self, old: str, new: str, said: str, tmp_path: Path) -> None:
        """With the place, and what there is instead."""
        text = (ROOT / FILE).read_text(encoding="utf-8")
        assert old in text
        problems = problems_of(text.replace(old, new, 1), tmp_path)
        assert any(problem.startswith(f"{FILE}: ") and said in problem for problem in problems), problems


class TestLogs:
    def test_lines_wait_on_the_disk_and_are_never_given_up(self) -> None:
        """How far a file is read, and what is not sent, outlives the collector."""
        logs = config()["exporters"]["otlp_http/logs"]
        assert (logs["retry_on_failure"]["max_elapsed_time"], logs["sending_queue"]["block_on_overflow"]) == (
            "0s",
            True,
        )
        assert logs["sending_queue"]["storage"] == config()["receivers"]["file_log"]["storage"] == "file_storage"
        assert "processors" not in config()["service"]["pipelines"]["logs"], "what is in memory is lost with it"

    def test_rotated_files_are_read_until_they_are_compressed(self) -> None:
        """And not the collector's own, which would feed themselves."""
        receiver = config()["receivers"]["file_log"]
        assert receiver["include"] == ["/var/log/pods/*/*/*.log", "/var/log/pods/*/*/*.log.*"]
        assert {"/var/log/pods/*/*/*.gz", "/var/log/pods/logs_collector-*/*/*"} <= {*receiver["exclude"]}

    def test_it_may_read_files_of_root_and_nothing_else(self) -> None:
        """Uid 0 without a capability, without a token, with one folder to write to."""
        spec = one(agent(), "DaemonSet", "collector")["spec"]["template"]["spec"]
        [container] = spec["containers"]
        assert (spec["securityContext"]["runAsUser"], spec["automountServiceAccountToken"]) == (0, False)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        paths = {each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each}
        mounts = {each["mountPath"]: each.get("readOnly", False) for each in container["volumeMounts"]}
        assert {path: mounts[path] for path in paths.values()} == {"/var/log/pods": True, "/var/lib/collector": False}
        assert config()["extensions"]["file_storage"]["directory"] == paths["state"]

    def test_nothing_else_is_in_its_namespace(self) -> None:
        """Which lets pods mount folders of a node; nor does anything get a right in the cluster."""
        kinds = {each["kind"] for each in agent()}
        assert not kinds & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "Deployment"}
        space = one(agent(), "Namespace", "logs")["metadata"]["labels"]
        assert space["pod-security.kubernetes.io/enforce"] == "privileged"
        spec = one(agent(), "NetworkPolicy", "deny-all")["spec"]
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def test_traces_find_their_way_out_and_in(self) -> None:
        """By the two halves of one way."""
        out = one(component("telemetry"), "NetworkPolicy", "backend-to-collector")["spec"]["egress"][0]
        [port] = [each["port"] for each in out["ports"]]
        assert str(port) in config()["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
        [to] = out["to"]
        labels = one(agent(), "DaemonSet", "collector")["spec"]["template"]["metadata"]["labels"]
        assert to["podSelector"]["matchLabels"].items() <= labels.items()
        assert to["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "logs"}
        into = one(agent(), "NetworkPolicy", "collector")["spec"]["ingress"]
        assert {"protocol": "TCP", "port": port} in [each for rule in into for each in rule["ports"]]
