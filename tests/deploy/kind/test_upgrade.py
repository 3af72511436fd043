"""PostgreSQL 17 to 18 on Kubernetes: each acknowledged write moves, people read meanwhile, no fault loses anything."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engines.kind import NODES, load_command
from tests.deploy.conftest import AddRow
from tests.deploy.keeping import Writers, begin
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.kind.test_backups import SUM, TABLE, tell
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.notes import NOTES
from tests.tiers import in_gate

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
VERSION = "SELECT current_setting('server_version_num')::int / 10000"
LONG_BAKE, SHORT_BAKE = 20, 3  # seconds: something breaks in the first, however busy the machine is
# Fails on 18 alone, with each row that is copied there.
ONLY_17 = (
    "CREATE FUNCTION only_17() RETURNS bool LANGUAGE sql AS"
    " 'SELECT current_setting(''server_version_num'')::int < 180000';"
    " CREATE TABLE stubborn (ok bool CHECK (ok AND public.only_17())); INSERT INTO stubborn VALUES (true);"
    ' ALTER TABLE stubborn OWNER TO "{owner}"; ALTER FUNCTION only_17 OWNER TO "{owner}"'
)


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
    before = old.sql(SUM)
    refused = old.deploy()
    assert refused.code == 2, str(refused)
    assert "`nox -s upgrade-database -- kind` moves it to PostgreSQL 18" in refused.problems()[0]
    first = old.answering()
    with Writers(old) as writers, Visitors(old.url, NOTES, "/health") as visitors:
        wait_until(lambda: len(writers.acknowledged()) > 20, "nobody wrote anything", 30)
        outcome = tell(old, "upgrade-database", "--yes")
        known = len(writers.acknowledged())
        wait_until(lambda: len(writers.acknowledged()) > known, "nobody writes any more", 30)
    assert outcome.verdict == "proved", str(outcome)
    assert old.sql(VERSION) == "18"
    ids = set(old.sql(f"SELECT string_agg(id::text, ' ') FROM {TABLE}").split())
    assert writers.acknowledged() <= ids
    only = f"{SUM} AND text LIKE 'before %'"
    assert old.sql(only) == before
    assert {(one.status, bool(one.retry_after)) for one in writers.writes} <= {(201, False), (503, True)}
    assert {visit.status for visit in visitors.visits} <= {200, 503}
    assert {visit.status for visit in visitors.of("/health")} == {200}
    turned = [one for one in writers.writes if one.status == 503]
    closed = turned[-1].ended - turned[0].at
    reads = [visit for visit in visitors.of(NOTES) if visit.status == 503]
    unread = reads[-1].at + reads[-1].seconds - reads[0].at if reads else 0.0
    assert unread < closed <= outcome.report["closed_seconds"] + 5
    done = tell(old, "upgrade-database", "--yes")
    assert done.report == {"environment": "kind", "verdict": "unchanged"}
    tidy(old, "18", OLD, NEW)
    moved = f"{len(writers.acknowledged())} acknowledged writes, all there; 503 for writes {closed:.1f} s"
    add_row(UPGRADES, f"under traffic                   {outcome.seconds:4.1f} s, {moved}, for reads {unread:.1f} s")
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
    old.sql(ONLY_17.format(owner=old.settings()["POSTGRES_OWNER"]))
    before = old.sql(SUM)
    with Visitors(old.url, NOTES, "/ready") as visitors:
        outcome = tell(old, "upgrade-database", "--yes", code=1)
    assert "stubborn" in outcome.reason
    assert {visit.status for visit in visitors.visits} == {200}
    assert old.sql(SUM) == before
    tidy(old, "17", OLD, NEW)
    old.sql("DROP TABLE stubborn")
    assert tell(old, "upgrade-database", "--yes").verdict == "proved"
    tidy(old, "18", OLD, NEW)
    add_row(UPGRADES, f"a restore that fails            {outcome.report['said'][:110]}")


def test_what_fails_its_proof_is_undone(old: KindCheckout, add_row: AddRow) -> None:
    """The old server serves again on its own claim; the new one's is kept, and has to go before the next try."""
    before = old.sql(SUM)
    old.configure(bake_seconds=LONG_BAKE)
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("prove")
    old.sql(f"DROP TABLE {TABLE} CASCADE")
    outcome = upgrade.finish()
    old.configure(bake_seconds=SHORT_BAKE)
    assert (outcome.code, outcome.verdict) == (1, "undone"), str(outcome)
    assert old.sql(SUM) == before
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
    upgrade = begin(old, "upgrade-database", "--yes")
    upgrade.wait_for_stage("last restore")
    upgrade.send(signal.SIGINT)
    outcome = upgrade.finish()
    assert (outcome.code, outcome.verdict) == (130, "interrupted"), str(outcome)
    tidy(old, "17", OLD, NEW)


@pytest.mark.parametrize("stage", in_gate(["last restore", "switch"], "switch"))
def test_a_killed_one_is_healed(old: KindCheckout, stage: str, add_row: AddRow) -> None:
    """By the next command; a deploy does not take the copy for the data, and the next try is proved."""
    with Writers(old) as writers:
        upgrade = begin(old, "upgrade-database", "--yes")
        upgrade.wait_for_stage(stage)
        upgrade.kill()
        deploy = old.deploy()
        after = len(writers.acknowledged())
        wait_until(lambda: len(writers.acknowledged()) > after, "nobody writes any more", 60)
    major = old.sql(VERSION)
    assert deploy.code == (0 if major == "18" else 2), str(deploy)
    if major == "17":
        assert "`nox -s upgrade-database -- kind` copies it anew" in deploy.problems()[0]
        assert tell(old, "upgrade-database", "--yes").verdict == "proved"
    ids = set(old.sql(f"SELECT string_agg(id::text, ' ') FROM {TABLE}").split())
    assert writers.acknowledged() <= ids
    tidy(old, "18", OLD, NEW)
    said = f"PostgreSQL {major} serves after the next deploy, none of {len(writers.acknowledged())} writes lost"
    add_row(UPGRADES, f"kill -9 in {stage:13}        {said}")
