"""PostgreSQL 17 to 18 on Kubernetes: each acknowledged write moves, people read meanwhile, no fault loses anything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.kind import NODES, load_command
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import tell
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.upgrading import (
    VERSION,
    is_healed,
    is_interrupted,
    is_not_restored,
    is_undone,
    moves_each_acknowledged_write,
)

pytestmark = pytest.mark.e2e

UPGRADES = "kind: PostgreSQL 17 to 18"
STORE = "k8s/components/postgres/postgres.yaml"
SET = "  name: postgres # another major"
POD = "pod-name: postgres-0}"
IMAGE = "          image: postgres:{}-trixie\n"
DOCKERFILE, PROGRAMS = "docker/Dockerfile.backend", "ARG POSTGRES_IMAGE=postgres:{}-trixie\n"
# Images since 18 keep their data so; that of 17 has a volume of its own at its usual place, which ends with the pod.
USER = "            - {name: POSTGRES_USER, value: postgres}\n"
FOLDER_OF_17 = f"{USER}            - {{name: PGDATA, value: /var/lib/postgresql/17/docker}}\n"
OLD, NEW = "data-postgres-0", "data-postgres-18-0"


def down(one: KindCheckout) -> None:
    """Remove everything, with the data of both servers, as an administrator."""
    for begun in one.started:  # a test that failed may have left one that runs
        if begun.process.poll() is None:
            begun.kill()
    outcome = one.run("down", "--volumes", KUBECONFIG=str(Path.home() / ".kube/config"))
    assert outcome.code == 0, str(outcome)
    kubectl("delete", "persistentvolumeclaim", "backups", "--ignore-not-found", "--timeout=120s")
    assert kubectl("get", "persistentvolumeclaims,statefulsets", "--output=name") == ""


@pytest.fixture(scope="module")
def apart(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The clone that all tests share, which has its release and PostgreSQL 18 again afterwards."""
    # The overlay's own images are on the nodes; this one is pulled where the machine does not have it.
    subprocess.run(load_command("postgres:17-trixie", NODES), capture_output=True, check=False)
    yield deployed
    deployed.proved()


@pytest.fixture
def old(apart: KindCheckout) -> Iterator[KindCheckout]:
    """The clone, whose release was proved on PostgreSQL 17, with notes; its manifests name 18 and its claim now."""
    down(apart)
    apart.patch(STORE, IMAGE.format(18), IMAGE.format(17))
    apart.patch(STORE, USER, FOLDER_OF_17)
    apart.patch(DOCKERFILE, PROGRAMS.format(18), PROGRAMS.format(17))
    apart.proved()
    for number in range(20):
        apart.write_note(f"before {number}")
    define_18(apart)
    yield apart
    down(apart)
    apart.restore()


def define_18(one: KindCheckout) -> None:
    one.patch(STORE, SET, SET.replace("postgres #", "postgres-18 #"))
    one.patch(STORE, POD, POD.replace("postgres-0", "postgres-18-0"))
    one.patch(STORE, IMAGE.format(17), IMAGE.format(18))
    one.patch(STORE, FOLDER_OF_17, USER)
    one.patch(DOCKERFILE, PROGRAMS.format(17), PROGRAMS.format(18))


def claims() -> set[str]:
    """The claims of PostgreSQL's data that there are."""
    found = kubectl("get", "persistentvolumeclaims", "--output=name").split()
    return {name.partition("/")[2] for name in found if "/data-postgres" in name}


def servers() -> dict[str, int]:
    """How many pods each StatefulSet of PostgreSQL is to have."""
    label = "--selector=app.kubernetes.io/component=postgres"
    found = json.loads(kubectl("get", "statefulsets", label, "--output=json"))["items"]
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in found}


def tidy(one: KindCheckout, major: str, *kept: str) -> None:
    """Assert that the server of MAJOR serves and takes writes, that KEPT are the claims, and no other server runs."""
    assert one.sql(VERSION) == major
    assert one.write_note("after")["id"]
    assert claims() == {*kept}
    serving = {"17": "postgres", "18": "postgres-18"}[major]
    assert [name for name, pods in servers().items() if pods] == [serving]
    assert one.untidy() == []


def test_it_moves_each_acknowledged_write(old: KindCheckout, add_row: AddRow) -> None:
    """Under traffic: a deploy is refused before, writes get 503 for some seconds, and nobody sees another fault."""
    first = old.answering()
    moves_each_acknowledged_write(old, UPGRADES, add_row)
    tidy(old, "18", OLD, NEW)
    old.change("after the move")
    new = old.proved()
    assert first != {new.release}
    tell(old, "backup")  # by the programs of 18, which the release has now
    back = old.run("rollback", "--json")  # to a release that was proved on 17, whose PostgreSQL is left out
    assert (back.code, back.verdict) == (0, "proved"), str(back)
    assert old.answering() == first
    tidy(old, "18", OLD, NEW)
    add_row(
        UPGRADES, f"the release of before           rolled back to after that: {back.seconds:4.1f} s, on PostgreSQL 18"
    )


def test_what_cannot_be_restored_is_undone(old: KindCheckout, add_row: AddRow) -> None:
    """Before anybody is turned away; and once it can be, the same claim is taken."""
    outcome = is_not_restored(old)
    tidy(old, "17", OLD, NEW)
    old.sql("DROP TABLE stubborn")
    assert tell(old, "upgrade-database", "--yes").verdict == "proved"
    tidy(old, "18", OLD, NEW)
    add_row(UPGRADES, f"a restore that fails            {outcome.report['said'][:110]}")


def test_what_fails_its_proof_is_undone(old: KindCheckout, add_row: AddRow) -> None:
    """The old server serves again on its own claim; the new one's is kept, and has to go before the next try."""
    outcome = is_undone(old)
    tidy(old, "17", OLD, NEW)
    again = old.run("upgrade-database", "--yes", "--json")
    assert again.code == 2
    assert f"PersistentVolumeClaim {NEW} has what was written until" in again.problems()[0]
    assert f"delete pvc {NEW}` if nobody needs it" in again.problems()[0]
    deploy = old.deploy()
    assert deploy.code == 2, str(deploy)
    assert "has a copy of the data, and what was written since is not in it" in deploy.problems()[0]
    assert old.sql(VERSION) == "17"
    add_row(UPGRADES, f"a proof that fails              {outcome.report['said'][:110]}")


def test_ctrl_c_while_nobody_writes_is_undone(old: KindCheckout) -> None:
    """They write again."""
    is_interrupted(old)
    tidy(old, "17", OLD, NEW)


@pytest.mark.parametrize("stage", ["last restore", "switch"])
def test_a_killed_one_is_healed(old: KindCheckout, stage: str, add_row: AddRow) -> None:
    """By the next command; a deploy does not take the copy for the data, and the next try is proved."""
    row = is_healed(old, stage, "`nox -s upgrade-database -- kind` copies it anew")
    tidy(old, "18", OLD, NEW)
    add_row(UPGRADES, row)
