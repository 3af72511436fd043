"""A release that must not ship on Kubernetes: found out in seconds, undone, and the old one answers each user."""

from __future__ import annotations

import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.project import KubernetesEnvironment
from pipeline.engines.kind import CONTEXT, REGISTRY
from pipeline.registry.image import resolve
from tests.containers import docker
from tests.deploy.breaking import IN_SERVICE, add_migration, wrap_service
from tests.deploy.conftest import AddRow
from tests.deploy.kind.stack import NAMESPACE, KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.tried import refuses_what_lacks_a_secret
from tests.deploy.visitors import Visitors
from tests.pipeline.targets.kubernetes.cases import FOREIGN_ELF
from tests.project import NAME, PROJECT
from tests.registries import push_index
from tests.tiers import in_gate

pytestmark = pytest.mark.e2e

TABLE = "kind: broken releases"
# A reader of the table, who takes his time; found and ended by what it runs.
HOLD = (
    "PGPASSWORD=$(cat /run/secrets/POSTGRES_PASSWORD) psql -h 127.0.0.1"
    f" -U {NAME} -d {NAME}"
    " -c 'BEGIN; LOCK TABLE testing_notes IN ACCESS SHARE MODE; SELECT pg_sleep(120)'"
)
HOLDER = "FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK TABLE%' AND wait_event = 'PgSleep'"
HELD, RELEASE = f"SELECT count(*) {HOLDER}", f"SELECT pg_terminate_backend(pid) {HOLDER}"


def op(path: str, value: Any, verb: str = "replace") -> dict[str, Any]:
    """One operation of a JSON patch on the service's container."""
    return {"op": verb, "path": f"/spec/template/spec/containers/0/{path}", "value": value}


@dataclass(frozen=True)
class Broken:
    """How a release is broken, what its report must say, and within how many seconds the rollout must have stopped.

    One that is `tried` is found out by its trial, before anything is touched.
    """

    says: str
    seconds: float
    code: str = ""  # at the end of the service's module
    layer: str = ""  # before each request
    settings: dict[str, str] = field(default_factory=dict)
    patch: tuple[dict[str, Any], ...] = ()
    tried: bool = True


KIND = PROJECT.environment("kind")
assert isinstance(KIND, KubernetesEnvironment)
MISSING = f"{KIND.repository}@sha256:{'0' * 64}"
SMALL = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
BIG = {"requests": {"cpu": "50m", "memory": "3500Mi"}, "limits": {"memory": "3500Mi"}}
NOWHERE = {"configMapRef": {"name": "nowhere"}}
BROKEN = {
    "crashes at import": Broken("the flux is off", 40, code="raise RuntimeError('the flux is off')"),
    "crashes later": Broken("the flux is off", 40, tried=False,
                            code=f"if {IN_SERVICE}:\n    raise RuntimeError('the flux is off')"),
    "answers 500": Broken("before anybody is sent to it", 40, layer="if method == 'POST':\n    status = 500"),
    "bad configuration": Broken("LOG_LEVEL", 20, settings={"LOG_LEVEL": "LOUD"}),
    "image missing": Broken("is not in its registry: push it", 25, patch=(op("image", MISSING),)),
    "config missing": Broken("create the ConfigMap nowhere", 20, patch=(op("envFrom/-", NOWHERE, "add"),)),
    "unschedulable": Broken("fits no node", 40, patch=(op("resources/requests/cpu", "3"),)),
    "out of memory": Broken("killed at its memory limit of 64Mi", 60, code="_hoard = bytearray(256 * 2**20)",
                            patch=(op("resources", SMALL),)),
    "quota": Broken(f"quota {NAME} allows", 20, patch=(op("resources", BIG),)),
    "breaks restricted": Broken("Pod Security restricted", 20,
                                patch=(op("securityContext", {"allowPrivilegeEscalation": True}),)),
    "ready, then 500": Broken("failed until it was undone: ", 60, tried=False,
                               layer="if self.asked >= 50:\n    status = 500"),
}  # fmt: skip


@pytest.mark.parametrize("name", in_gate(BROKEN, "ready, then 500"))
def test_a_broken_release_is_undone(name: str, sound: KindCheckout, add_row: AddRow) -> None:
    """Exit code 1, the cause in one line, long before the rollout's deadline, and the old release serves."""
    old, how = sound.answering(), BROKEN[name]
    if how.code:
        sound.append("backend/app.py", textwrap.dedent(how.code))
    if how.layer:
        wrap_service(sound, how.layer, when="True")
    if how.settings:
        sound.settle(**how.settings)
    if how.patch:
        sound.patch_backend(*how.patch)
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed" if how.tried else "rolled_back"), str(outcome)
    assert how.says in outcome.reason, str(outcome)
    stages = {stage["name"]: stage["seconds"] for stage in outcome.report["stages"]}
    until = stages["check"] if how.tried else stages["roll out"] + stages.get("prove", 0)
    assert until < how.seconds, str(outcome)
    assert sound.answering() == old
    assert sound.untidy() == []
    assert kubectl("get", "jobs", "--output=name") == ""
    back = outcome.report["rollback"]
    if how.tried:
        assert back is None, "nothing was touched"
        assert "roll out" not in stages
    else:
        assert back["verdict"] == "proved"
    failed = sum((one or {}).get("failed", 0) for one in (outcome.report["traffic"], (back or {}).get("traffic")))
    add_row(TABLE, f"{name:18} stopped after {until:4.1f} s, undone in {outcome.seconds:4.1f} s, {failed:3} failed: "
                   f"{outcome.reason[:110]}")  # fmt: skip


def test_what_lacks_a_secret_is_refused_before_anything_is_exchanged(sound: KindCheckout, add_row: AddRow) -> None:
    """By a pod that no Service selects."""
    add_row(TABLE, f"{'lacks a secret':18} {refuses_what_lacks_a_secret(sound)[:120]}")


def test_never_ready_is_told_at_the_deadline(sound: KindCheckout, add_row: AddRow) -> None:
    """What may heal by itself has its time; then the probe's answer is the reason."""
    old = sound.answering()
    wrap_service(sound, "if path == '/ready':\n    status = 503")
    sound.configure(timeout=25)
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "did not get ready in time" in outcome.reason
    assert "GET /ready: answered 503" in outcome.reason
    assert sound.answering() == old
    add_row(TABLE, f"{'never gets ready':18} undone in {outcome.seconds:4.1f} s: {outcome.reason[:110]}")


NOT_ASKED = """
@hot.get("/api/v1/testing-broken")
async def broken(request: Request) -> Response:
    raise RuntimeError("people see this, and the proof does not")
"""


def test_what_breaks_for_people_alone_is_undone(sound: KindCheckout, add_row: AddRow) -> None:
    """The proof sends nothing that fails; the pods' own metrics tell, to nobody but the vantage."""
    old = sound.answering()
    sound.append("backend/domain.py", NOT_ASKED)
    sound.configure(bake_seconds=45)
    with Visitors(sound.url, "/api/v1/testing-broken"):
        outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "requests from others with 5xx" in outcome.reason, str(outcome)
    assert outcome.traffic["failed"] == 0
    assert sound.answering() == old
    assert sound.untidy() == []
    add_row(TABLE, f"{'breaks for people':18} undone in {outcome.seconds:4.1f} s: {outcome.reason[:110]}")


def test_a_release_that_cannot_carry_the_load_is_undone(sound: KindCheckout, add_row: AddRow) -> None:
    """The autoscaler is at its end, and was not before; what a start costs has left its figures by then."""
    old = sound.answering()
    sound.patch_backend(op("resources/requests/cpu", "10m"))
    sound.patch("k8s/overlays/kind/kustomization.yaml", "path: /spec/maxReplicas, value: 4",
                "path: /spec/maxReplicas, value: 2")  # fmt: skip
    sound.configure(bake_seconds=120)
    outcome = sound.start("deploy").finish(420)  # the way back bakes as long
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "it cannot carry the load: the autoscaler backend is at its maximum of 2" in outcome.reason, str(outcome)
    assert sound.answering() == old
    add_row(TABLE, f"{'too slow to scale':18} undone in {outcome.seconds:4.1f} s: {outcome.reason[:110]}")


def test_an_image_without_the_nodes_platform_is_refused_first(sound: KindCheckout) -> None:
    """By what it says of itself, beside the image that serves: a deployer may ask no node."""
    old, released = sound.answering(), sound.deployed_image()
    digest, _ = push_index(f"{REGISTRY}/{NAME}", "s390x")
    sound.patch_backend(op("image", f"{REGISTRY}/{NAME}@{digest}"))
    outcome = sound.deploy()
    assert outcome.code == 1, str(outcome)
    assert outcome.report["rollback"] is None
    assert "its image is for linux/s390x, and the pods that serve run on linux/" in outcome.reason, str(outcome)
    assert sound.answering() == old
    assert sound.deployed_image() == released


def test_an_image_with_another_machines_program_is_refused(
    sound: KindCheckout, add_row: AddRow, tmp_path: Path
) -> None:
    """It says that it is for these nodes, and its program is not: nobody can know before it starts."""
    old = sound.answering()
    (tmp_path / "program").write_bytes(FOREIGN_ELF)
    dockerfile = f'FROM {sound.deployed_image()}\nCOPY --chmod=755 program /program\nENTRYPOINT ["/program"]\n'
    (tmp_path / "Dockerfile").write_text(dockerfile)
    name = f"{REGISTRY}/{NAME}:another-machine"
    docker("build", "--quiet", "--provenance=false", "--tag", name, str(tmp_path))
    try:
        docker("push", "--quiet", name)
        sound.patch_backend(op("image", f"{REGISTRY}/{NAME}@{resolve(name).digest}"))
        outcome = sound.deploy()
    finally:
        docker("rmi", name)
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert "its image is of another architecture than its node" in outcome.reason, str(outcome)
    assert sound.answering() == old
    assert sound.untidy() == []
    add_row(TABLE, f"{'another machine':18} refused in {outcome.seconds:4.1f} s: {outcome.reason[:110]}")


def test_a_statefulset_change_that_kubernetes_refuses_is_said_first(sound: KindCheckout) -> None:
    """By the API server's dry run: nothing was touched."""
    old = sound.answering()
    path = sound.root / "k8s/overlays/kind/kustomization.yaml"
    path.write_text(path.read_text().replace("value: 1Gi", "value: 2Gi"))
    outcome = sound.deploy()
    assert outcome.code == 1, str(outcome)
    assert outcome.report["rollback"] is None
    assert "the API server refuses it" in outcome.reason
    assert "StatefulSet" in outcome.reason
    assert sound.answering() == old


def test_a_failing_migration_stops_before_anything_real(sound: KindCheckout) -> None:
    """In the rehearsal; and one that only the real data fails is undone with nothing half applied."""
    old, revision = sound.answering(), sound.revision()
    add_migration(sound, "is no SQL", "ALTER TABLE nowhere ADD COLUMN team text")
    outcome = sound.deploy()
    assert (outcome.code, outcome.verdict) == (1, "failed"), str(outcome)
    assert "a migration fails on an empty database" in outcome.reason
    sound.restore()
    sound.write_note("a row")
    add_migration(
        sound,
        "fails on real rows",
        "ALTER TABLE testing_notes ADD CONSTRAINT nothing CHECK (false) NOT VALID",
        "ALTER TABLE testing_notes VALIDATE CONSTRAINT nothing",
    )
    outcome = sound.deploy()
    assert outcome.code == 1, str(outcome)
    assert sound.answering() == old
    assert sound.revision() == revision
    assert sound.untidy() == []


def test_a_migration_that_waits_for_a_lock_gives_up(sound: KindCheckout, add_row: AddRow) -> None:
    """Somebody holds the table: the Job ends at its lock_timeout instead of queueing every request behind itself."""
    old, revision = sound.answering(), sound.revision()
    add_migration(sound, "waits", "ALTER TABLE testing_notes ADD COLUMN waits text")
    place = (f"--context={CONTEXT}", f"--namespace={NAMESPACE}")
    holder = ("kubectl", *place, "exec", "postgres-0", "--", "sh", "-c", HOLD)
    with subprocess.Popen(holder, stdout=subprocess.DEVNULL) as holding:
        try:
            wait_until(lambda: sound.sql(HELD) == "1" or None, "nobody holds the table")
            outcome = sound.deploy()
        finally:
            sound.sql(RELEASE)
            holding.wait(30)
    assert (outcome.code, outcome.verdict) == (1, "rolled_back"), str(outcome)
    assert "lock timeout" in outcome.reason, str(outcome)
    assert sound.revision() == revision
    assert sound.answering() == old
    assert sound.untidy() == []
    add_row(TABLE, f"{'blocked migration':18} stopped in {outcome.seconds:4.1f} s: {outcome.reason[:110]}")


def test_a_migration_ships_with_its_release(sound: KindCheckout) -> None:
    """The Job brings the schema before the new pods need it, and the old ones live with it."""
    revision = add_migration(sound, "adds a column", "ALTER TABLE testing_notes ADD COLUMN team text")
    outcome = sound.proved()
    assert sound.revision() == revision
    assert kubectl("get", "jobs", "--output=name") == ""
    back = sound.run("rollback")
    assert (back.code, back.verdict) == (0, "proved"), str(back)
    assert sound.answering() != {outcome.release}
    sound.commit()  # it was applied: what comes next follows it


def test_a_migration_whose_pod_is_removed_is_named_and_tried_again(sound: KindCheckout) -> None:
    """At once, from the Job's own condition; as nothing was applied, the second try ships the release."""
    marker = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %pg_sleep(20)%'"
    sound.write_note("a row")
    revision = add_migration(
        sound, "takes a while",
        "DO $$ BEGIN IF EXISTS (SELECT FROM testing_notes) THEN PERFORM pg_sleep(20); END IF; END $$",
        "ALTER TABLE testing_notes ADD COLUMN slow text",
    )  # fmt: skip
    deploy = sound.start("deploy")
    deploy.wait_for(lambda: sound.sql(marker) == "1", "the migration runs", seconds=180)
    pod = sound.pods("migrate")[0]["metadata"]["name"]
    kubectl("delete", "pod", pod, "--grace-period=1", "--wait=false")
    outcome = deploy.finish(300)
    assert (outcome.code, outcome.verdict) == (0, "proved"), str(outcome)
    assert "the pod of the migrations' Job was removed while it ran" in outcome.stderr
    assert "no pod yet for 1" not in outcome.stderr.partition("was removed")[0]
    assert sound.revision() == revision
    sound.commit()
    assert sound.untidy() == []
