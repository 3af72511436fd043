"""What goes wrong around a deploy on Kubernetes: killed deploys, dead pods, drained and stopped nodes, bad input."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.targets.kubernetes.rollout.watch import is_ready
from tests.containers import docker
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import KindCheckout, deployer_config, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.runs import Deploy
from tests.deploy.visitors import Visitors
from tests.notes import NOTES
from tests.project import NAME
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

KILLED = "kind: kill -9 of the deploy"
FAULTS = "kind: faults under traffic"


def stage(name: str) -> Callable[[KindCheckout, Deploy], bool]:
    """Stage NAME began."""
    return lambda _, deploy: deploy.stage() == name


def both(one: KindCheckout, deploy: Deploy) -> bool:
    """Pods of two releases run."""
    releases = {pod["metadata"]["annotations"]["slipway/release"] for pod in one.pods()}
    return deploy.stage() == "roll out" and len(releases) > 1


def tries(_: KindCheckout, deploy: Deploy) -> bool:
    """The pod of the trial runs, and goes on without the deploy."""
    return "Running" in kubectl("get", "pods", "--selector=app.kubernetes.io/name=try-backend", "--no-headers")


MOMENTS = {
    "build": stage("build"),
    "check": stage("check"),
    "check, trial": tries,
    "migrate": stage("migrate"),
    "roll out, both": both,
    "prove": stage("prove"),
}


@pytest.mark.parametrize("moment", in_gate(MOMENTS, "roll out, both"))
def test_a_killed_deploy_is_healed_by_the_next(moment: str, deployed: KindCheckout, add_row: AddRow) -> None:
    """People are served; then the next one is proved, and no Job, lock or throwaway part of the dead one is left."""
    old = deployed.answering()
    deployed.change(f"killed in {moment}")
    deploy = deployed.start("deploy")
    deploy.wait_for(lambda: MOMENTS[moment](deployed, deploy), moment)
    deploy.kill()
    assert deployed.serves()
    healed = deployed.proved()
    assert deployed.answering() == {healed.release}
    assert deployed.untidy() == []
    deployed.commit()
    add_row(KILLED, f"{moment:15} served meanwhile, next deploy proved in {healed.seconds:4.1f} s ({len(old)} before)")


@pytest.mark.parametrize("component", ["postgres", "redis"])
def test_a_killed_store_comes_back(component: str, deployed: KindCheckout, add_row: AddRow) -> None:
    """With its data; the service says 503 and recovers by itself, Redis only degrades."""
    release = deployed.answering()
    with Visitors(deployed.url, f"{NOTES}?limit=1") as seen:
        kubectl("delete", "pod", f"{component}-0", "--grace-period=0", "--force", "--wait=false")
        kubectl("rollout", "status", f"statefulset/{component}", "--timeout=120s")
        wait_until(lambda: deployed.serves() or None, f"not ready after {component} came back", 60)
    assert deployed.answering() == release
    failed = [visit for visit in seen.visits if visit.status != 200]
    assert {visit.status for visit in failed} <= ({503} if component == "postgres" else set()), failed[:3]
    add_row(
        FAULTS, f"{component:9} killed: {len(failed)} of {len(seen.visits)} visits failed (503), then all is served"
    )


def test_a_deploy_survives_a_drained_node(deployed: KindCheckout, add_row: AddRow) -> None:
    """`kubectl drain` in mid-roll: the PodDisruptionBudget and the drain of each pod keep every answer."""
    node = deployed.pods()[0]["spec"]["nodeName"]
    deployed.change("a node is drained")
    deploy = deployed.start("deploy")
    deploy.wait_for_stage("roll out")
    try:
        kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s",
                "--pod-selector=app.kubernetes.io/component in (backend, frontend)")  # fmt: skip
        outcome = deploy.finish(300)
    finally:
        kubectl("uncordon", node)
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert outcome.traffic["failed"] == 0
    deployed.commit()
    add_row(FAULTS, f"node drained in mid-roll: proved, {outcome.traffic['sent']} requests, 0 failed")


def test_a_stopped_worker_takes_its_pods_out_of_the_edge(deployed: KindCheckout, add_row: AddRow) -> None:
    """Its replica is lost until Kubernetes notices; the others serve, and it comes back with the node."""
    workers = {"slipway-worker", "slipway-worker2"}
    [store] = deployed.pods("postgres")  # without its node nothing serves, and nobody promises that
    [worker] = workers - {store["spec"]["nodeName"]}

    def spread() -> bool:
        return {pod["spec"]["nodeName"] for pod in deployed.pods() if is_ready(pod)} == workers

    if not spread():  # a node that was drained stays empty until the next rollout
        kubectl("rollout", "restart", "deployment/backend")
        kubectl("rollout", "status", "deployment/backend", "--timeout=120s")
        assert spread()
    with Visitors(deployed.url, "/health") as seen:
        stopped = time.monotonic()
        docker("stop", "--time=0", worker)
        try:
            served = seen.wait_for("/health", 200, times=100, since=stopped + 1, seconds=120)
        finally:
            docker("start", worker)
        kubectl("wait", "--for=condition=Ready", f"node/{worker}", "--timeout=120s")
        wait_until(lambda: len([one for one in deployed.pods() if is_ready(one)]) >= 2 or None, "two replicas", 120)
    lost = sum(visit.status != 200 for visit in seen.visits)
    outcome = deployed.deploy()
    assert outcome.code == 0, str(outcome)
    add_row(FAULTS, f"worker stopped: {lost} of {len(seen.visits)} visits lost, all served after {served:.0f} s")


def test_a_deploy_survives_an_api_server_that_is_away_for_a_while(deployed: KindCheckout, add_row: AddRow) -> None:
    """The control plane's API server stops in mid-roll and comes back: the deploy waits for it."""
    deployed.change("the API server is away")
    deploy = deployed.start("deploy")
    deploy.wait_for_stage("roll out")
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    docker("exec", "slipway-control-plane", "mv", manifest, "/root/kube-apiserver.yaml")
    wait_until(lambda: "cannot be reached" in deploy.said() or None, "nobody noticed", 60)
    docker("exec", "slipway-control-plane", "mv", "/root/kube-apiserver.yaml", manifest)
    outcome = deploy.finish(400)
    wait_until(lambda: "ok" in kubectl("get", "--raw=/readyz", check=False), "the API server did not come back", 120)
    assert outcome.code in (0, 1), str(outcome)
    assert deployed.serves()
    healed = deployed.deploy()
    assert healed.code == 0, str(healed)
    assert deployed.untidy() == []
    deployed.commit()
    add_row(FAULTS, f"API server away in mid-roll: {outcome.verdict} ({outcome.report.get('reason') or 'no failure'})")


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PATH": "/nonexistent"}, "kubectl: not installed"),
        ({"KUBECONFIG": "/nonexistent"}, "context `kind-slipway` is not in your kubeconfig (none there): `nox -s clus"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_one_line(environ: dict[str, str], says: str, deployed: KindCheckout) -> None:
    """Exit code 2, one line, and nothing was touched."""
    refused = deployed.deploy(**environ)
    assert refused.code == 2, str(refused)
    assert says in refused.problems()[0]


def test_a_missing_permission_is_named_before_anything_is_touched(deployed: KindCheckout) -> None:
    """What an administrator has to give, in words."""
    role = json.loads(kubectl("get", "role", "deployer", "--output=json"))
    less = {**role, "rules": [rule for rule in role["rules"] if "deployments" not in rule["resources"]]}
    kubectl("replace", "--filename=-", given=json.dumps(less))
    try:
        refused = deployed.deploy()
    finally:
        del role["metadata"]["resourceVersion"]
        kubectl("replace", "--filename=-", given=json.dumps(role))
    assert refused.code == 2, str(refused)
    [problem] = refused.problems()
    assert problem.startswith(f"no permission to get, create, patch deployments.apps in namespace {NAME}: ask an admin")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIGRATION_DATABASE_URL", "postgresql://shop:canary-Fq8-canary-Fq8@db.example.org/shop"),
        ("POSTGRES_HOST", "db.example.org"),
        ("REDIS_HOST", "cache.example.org"),
    ],
)
def test_a_store_in_env_that_no_pod_would_use_is_refused(name: str, value: str, deployed: KindCheckout) -> None:
    """The overlay names the stores; the value is in no line."""
    with deployed.dotenv(**{name: value}):
        refused = deployed.deploy()
    assert refused.code == 2, str(refused)
    [problem] = refused.problems()
    assert problem.startswith(f"{name}: k8s/overlays/kind names the ")
    assert problem.endswith(f"of kind and would not use it: take {name} out of .env")
    assert value not in refused.stderr


@pytest.mark.parametrize(("name", "store"), [("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")])
def test_a_store_elsewhere_beside_that_of_the_overlay_is_refused(name: str, store: str, deployed: KindCheckout) -> None:
    """With what to take out, and without its value."""
    scheme = {"postgres": "postgresql", "redis": "rediss"}[store]
    with deployed.dotenv(**{name: f"{scheme}://shop:canary-Fq8-canary-Fq8@{store}.example.org/0"}):
        refused = deployed.deploy()
    assert refused.code == 2, str(refused)
    [problem] = refused.problems()
    assert problem.startswith(f"{name}: k8s/overlays/kind runs {store} itself, and nobody would use it: take")
    assert "canary" not in refused.stderr
    assert deployed.deploy().code == 0


def test_a_shell_that_says_another_role_is_refused(deployed: KindCheckout) -> None:
    """The role goes with its password in the Secret, which is made from `.env`."""
    refused = deployed.deploy(POSTGRES_USER="another")
    assert refused.code == 2, str(refused)
    [problem] = refused.problems()
    assert problem.startswith(f"POSTGRES_USER: the environment says `another`, .env says `{NAME}-app-1`")


def test_an_expired_token_is_one_line(deployed: KindCheckout, tmp_path: Path) -> None:
    """Who deploys learns that the cluster does not know them."""
    config = json.loads(deployer_config(tmp_path / "config").read_text())
    config["users"][0]["user"]["token"] = "expired"
    (tmp_path / "config").write_text(json.dumps(config))
    refused = deployed.deploy(KUBECONFIG=str(tmp_path / "config"))
    assert refused.code == 2, str(refused)
    [problem] = refused.problems()
    assert "may you use it?" in problem


def test_a_drain_that_outlasts_the_grace_period_is_refused(sound: KindCheckout) -> None:
    """Kubernetes would kill each pod that leaves, and nobody would say so: the plan does, and touches nothing."""
    sound.settle(DRAIN_SECONDS="60")
    outcome = sound.deploy()
    assert outcome.code == 2, str(outcome)
    assert "terminationGracePeriodSeconds of Deployment backend is 60, and its pods need 100" in str(outcome)


def test_a_redis_that_is_not_there_is_named_by_the_deploy(sound: KindCheckout) -> None:
    """The release is proved, as the service works without; the log and the report say that it does."""
    sound.settle(REDIS_HOST="redis.nowhere.example.org")
    outcome = sound.proved()
    assert any(line.startswith("/ready is degraded: redis: ") for line in outcome.report["remarks"])
    assert "/ready is degraded: redis: " in outcome.stderr
