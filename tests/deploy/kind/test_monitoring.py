"""`nox -s cluster -- up --monitoring` for real: targets are up, an outage pages, deploys are metrics and listen."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from pipeline.engines.kind import NODES
from pipeline.engines.kustomize import render
from tests.deploy.breaking import fail_later
from tests.deploy.conftest import AddRow
from tests.deploy.kind.conftest import cluster
from tests.deploy.kind.stack import NAMESPACE, KindCheckout, kubectl
from tests.deploy.kind.watching import Watched, forwarded
from tests.deploy.machine import wait_until
from tests.project import NAME
from tests.services import ROOT
from tests.tools import missing

pytestmark = pytest.mark.e2e

ROWS = "kind: monitoring"
SECONDS = 300
PROMETHEUS = "http://prometheus.monitoring:9090"  # as the cluster knows it
ASKS = "jobs,pods,configmaps,networkpolicies"  # what asks it for a deploy that listens
LATER = 150  # seconds after a replica's first request: the proof is over by then
GONE_SECONDS = 240  # what a killed watch leaves ends by itself, and is removed
CRDS = "SLIPWAY_TEST_OPERATOR_CRDS"  # the Prometheus operator's, in a file: its bundle.yaml, or the CRDs alone


@pytest.fixture(scope="module")
def watched(deployed: KindCheckout) -> Iterator[Watched]:
    """What watches the cluster of the clone, which was deployed before."""
    assert deployed.serves()
    code, output = cluster("up", "--monitoring")
    assert code == 0, output
    with (
        forwarded("monitoring", "service/prometheus", 9090) as prometheus,
        forwarded("monitoring", "service/alertmanager", 9093) as alertmanager,
    ):
        yield Watched(prometheus, alertmanager)
    own = "--selector=app.kubernetes.io/managed-by=administrator"
    kubectl("delete", "deployments,networkpolicies,configmaps", own)
    kubectl("delete", "namespace", "monitoring", "--timeout=120s")


def test_every_target_is_up(watched: Watched, deployed: KindCheckout, add_row: AddRow) -> None:
    """Replicas, the exporter, the kubelets: through the policies of both namespaces."""

    def up() -> Counter[str] | None:
        targets = watched.targets()
        return Counter(job for job, _, health in targets if health == "up") if targets else None

    replicas = len(deployed.pods())
    wanted = Counter(backend=replicas, deploys=1, alertmanager=1, prometheus=1, cadvisor=len(NODES), kubelet=len(NODES))
    wanted["kube-state-metrics"] = 1
    try:
        wait_until(lambda: up() == wanted, "every target is up", SECONDS)
    finally:
        add_row(ROWS, f"targets: {watched.targets()}")
    assert {one["namespace"] for one in watched.query('up{job="backend"}')} == {NAMESPACE}
    wait_until(lambda: watched.alerts() == {"Watchdog"}, "the Watchdog alone has arrived", SECONDS)
    assert watched.query("kube_deployment_spec_replicas{deployment='backend'}")[0]["value"] == replicas


def test_a_second_run_changes_nothing(watched: Watched) -> None:
    """Nor do pods of what watches begin anew."""
    before = kubectl("get", "pods", "--output=name", namespace="monitoring")
    code, output = cluster("up", "--monitoring")
    assert (code, "already up to date" in output) == (0, True), output
    assert kubectl("get", "pods", "--output=name", namespace="monitoring") == before
    assert watched.targets()


def test_a_deploy_is_a_metric(watched: Watched, sound: KindCheckout) -> None:
    """That it began, that it was proved, and how long it took."""
    sound.change("watched")
    sound.proved()
    expression = f'slipway_deploy_last_verdict{{namespace="{NAMESPACE}"}}'
    wait_until(lambda: [one["verdict"] for one in watched.query(expression)] == ["proved"], "it is told", 90)
    [ended] = watched.query("slipway_deploy_last_timestamp_seconds")
    [began] = watched.query("slipway_deploy_started_timestamp_seconds")
    assert time.time() - 120 < ended["value"] <= time.time()
    assert (ended["environment"], began["value"] < ended["value"]) == ("kind", True)


def test_a_backup_is_a_metric_whoever_made_it(watched: Watched, deployed: KindCheckout) -> None:
    """The clock's by its pod's status, one on demand by what it left."""
    kubectl("create", "job", "--from=cronjob/backup", "by-hand")

    def made() -> float | None:
        found = watched.query("slipway_backup_last_success_timestamp_seconds")
        return found[0]["value"] if found else None

    try:
        first = wait_until(made, "the clock's backup is told", SECONDS)
        assert watched.query("slipway_backup_last_bytes")[0]["value"] > 1000
        outcome = deployed.run("backup", "--json")
        assert outcome.code == 0, str(outcome)
        wait_until(lambda: (made() or 0) > first, "the one on demand is told", 90)
        assert watched.query("slipway_backup_last_verdict")[0]["verdict"] == "done"
    finally:
        kubectl("delete", "job", "by-hand")


def test_the_exporter_may_read_records_and_nothing_else(watched: Watched) -> None:
    """By the API server's word."""
    assert watched.query('up{job="deploys"}')
    account = f"--as=system:serviceaccount:{NAMESPACE}:exporter"

    def may(*what: str) -> bool:
        return kubectl("auth", "can-i", *what, account, check=False) == "yes"

    assert may("get", "configmap/deploy-facts")
    assert may("list", "pods")
    denied = (("list", "configmaps"), ("get", f"secret/{NAME}-secrets"), ("list", "secrets"), ("get", "pods/log"),
              ("delete", "pods"), ("create", "jobs"))  # fmt: skip
    assert [what for what in denied if may(*what)] == []


def test_an_outage_pages_and_its_end_resolves(watched: Watched, deployed: KindCheckout, add_row: AddRow) -> None:
    """Nobody is there to count a failure: NothingServes says so."""
    replicas = kubectl("get", "deployment", "backend", "--output=jsonpath={.spec.replicas}")
    kubectl("scale", "deployment/backend", "--replicas=0")  # an autoscaler leaves 0 alone
    began = time.monotonic()
    try:
        wait_until(lambda: "NothingServes" in watched.alerts(), "NothingServes pages", SECONDS)
        fired = time.monotonic() - began
    finally:
        kubectl("scale", "deployment/backend", f"--replicas={replicas}")
    began = time.monotonic()
    wait_until(lambda: "NothingServes" not in watched.alerts(), "it resolves", SECONDS)
    add_row(
        ROWS, f"NothingServes after {fired:.0f} s, resolved {time.monotonic() - began:.0f} s after the replicas' start"
    )
    wait_until(deployed.serves, "it serves again", 60)


def asks(*, kinds: str = ASKS) -> str:
    """What asks Prometheus for a watch."""
    return kubectl("get", kinds, "--selector=app.kubernetes.io/component=watch", "--output=name")


def test_a_release_that_fails_later_is_taken_back(watched: Watched, sound: KindCheckout, add_row: AddRow) -> None:
    """Prometheus in the cluster says so, which is asked there: who deploys may neither exec nor forward a port."""
    assert watched.targets()
    [old] = sound.answering()
    sound.configure(watch_minutes=10, prometheus=f'"{PROMETHEUS}"')
    fail_later(sound, LATER, each=50)
    began = time.monotonic()
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: asks(kinds="pods"), "a Job asks", LATER + SECONDS)
    assert kubectl("auth", "can-i", "create", "pods/portforward",
                   f"--as=system:serviceaccount:{NAMESPACE}:deployer", check=False) == "no"  # fmt: skip
    outcome = deploy.finish(LATER + 900)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert outcome.reason.startswith("ReleaseFailing fired"), str(outcome)
    watch, back = outcome.report["watch"], outcome.report["rollback"]
    assert (watch["outcome"], watch["alert"], back["release"], back["verdict"]) == (
        *("fired", "ReleaseFailing", old, "proved"),
    )
    assert watch["requests"] > 200, str(outcome)
    assert outcome.report["traffic"]["failed"] == 0, "it was right in the proof"
    assert sound.answering() == {old}
    assert sound.untidy() == []
    seen = f"watched {watch['seconds']:.0f} s, {watch['requests']} requests in 2 min"
    add_row(ROWS, f"1 in 50 fails from {LATER} s on: taken back after {time.monotonic() - began:.0f} s; {seen}")


def test_a_prometheus_that_cannot_be_asked_takes_nothing_back(watched: Watched, sound: KindCheckout) -> None:
    """It is said, with its address."""
    assert watched.targets()
    sound.configure(watch_minutes=1, prometheus='"http://prometheus.nowhere:9090"')
    sound.change("unheard")
    outcome = sound.start("deploy").finish(LATER + SECONDS)
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    said = "nothing was watched: prometheus: http://prometheus.nowhere:9090 does not answer: "
    assert outcome.report["watch"]["said"].startswith(said), str(outcome)
    assert sound.answering() == {outcome.release}
    assert sound.untidy() == []


def test_a_killed_watch_leaves_nothing(watched: Watched, sound: KindCheckout, add_row: AddRow) -> None:
    """What asks for it ends by itself; the next deploy finds nothing in its way."""
    assert watched.targets()
    sound.change("killed")
    sound.proved()
    sound.configure(watch_minutes=10, prometheus=f'"{PROMETHEUS}"')
    watch = sound.start("watch")
    watch.wait_for(lambda: asks(kinds="pods"), "a Job asks", SECONDS)
    watch.kill()
    began = time.monotonic()
    wait_until(lambda: asks() == "", "it is gone", GONE_SECONDS)
    add_row(ROWS, f"what asked for a killed watch was gone after {time.monotonic() - began:.0f} s")
    sound.configure(watch_minutes=0)
    sound.change("after")
    sound.proved()
    assert sound.untidy() == []


def test_the_operators_kinds_are_as_its_crds_have_them(made: str) -> None:
    """A cluster with them takes the component `monitoring`; nothing here acts on it."""
    assert made
    if CRDS not in os.environ:
        missing(f"{CRDS} names no file with the Prometheus operator's CRDs")
    kubectl("apply", "--server-side", "--filename", os.environ[CRDS])
    try:
        component = {"resources": [ROOT / "k8s/base"], "components": [ROOT / "k8s/components/monitoring"]}
        own = [one for one in render(component) if one["apiVersion"].startswith("monitoring.coreos.com/")]
        assert {one["kind"] for one in own} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
        names = [f"{kind}s.monitoring.coreos.com" for kind in ("servicemonitor", "podmonitor", "prometheusrule")]
        kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in names), "--timeout=60s")
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": own})
        checked = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
        assert kubectl(*checked, given=text, namespace="default").count("serverside-applied") == len(own)
        own[0]["spec"]["wrong"] = True
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": own})
        assert "wrong" in kubectl(*checked, given=text, namespace="default", check=False)
    finally:
        kubectl("delete", "--filename", os.environ[CRDS], "--timeout=60s")
