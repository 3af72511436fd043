"""A claim that was in use is never the first deploy: what would not find its data is refused, and nothing stops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.notes import NOTES

pytestmark = pytest.mark.e2e

STORE = "k8s/components/postgres/postgres.yaml"
IMAGE = "postgres:18-trixie"
CLAIM = "data-postgres-0"
HOME = "/var/lib/postgresql"
EMPTY = "or begin with an empty database: `nox -s deploy -- kind --empty-database`"
MOVED = f"            - {{name: POSTGRES_USER, value: postgres}}\n            - {{name: PGDATA, value: {HOME}/other}}\n"


def pods(one: KindCheckout) -> set[str]:
    """Its pods, each with how often it was started again."""
    found = [pod for component in ("backend", "postgres") for pod in one.pods(component)]
    return {f"{pod['metadata']['uid']} {pod['status']['containerStatuses'][0]['restartCount']}" for pod in found}


def refused(one: KindCheckout, *arguments: str) -> str:
    """The line that refuses a deploy: nothing was restarted or left, and the old release answers with its row."""
    row, before, release = one.write_note("before")["id"], pods(one), one.answering()
    outcome = one.deploy(*arguments)
    [line] = outcome.problems()
    assert outcome.code == 2, str(outcome)
    assert pods(one) == before
    assert one.answering() == release
    assert one.request("GET", f"{NOTES}/{row}").status_code == 200
    assert one.untidy() == []
    return line


@pytest.mark.parametrize("arguments", [(), ("--empty-database",)])
def test_another_major_is_refused(arguments: tuple[str, ...], sound: KindCheckout) -> None:
    """By its tag, which nobody has to pull; also where an empty database is asked for."""
    sound.patch(STORE, f"image: {IMAGE}", "image: postgres:19-trixie")
    assert refused(sound, *arguments) == (
        f"StatefulSet postgres: the data in PersistentVolumeClaim {CLAIM} is of PostgreSQL 18, which PostgreSQL 19 of"
        f" image postgres:19-trixie cannot read: put image {IMAGE} back, or name it `postgres-19`, and `postgres-19-0`"
        " in the Service's selector, and `nox -s upgrade-database -- kind` moves it"
    )


def test_a_moved_pgdata_is_refused(sound: KindCheckout) -> None:
    """Within the claim: both places are named."""
    sound.patch(STORE, "            - {name: POSTGRES_USER, value: postgres}\n", MOVED)
    assert refused(sound) == (
        f"StatefulSet postgres: its data is in `18/docker` of PersistentVolumeClaim {CLAIM}, and would be in `other`:"
        " put PGDATA, mountPath and subPath back, or use another claim for an empty database"
    )


def test_another_claim_is_refused(sound: KindCheckout) -> None:
    """It is not made, and the old one is named."""
    sound.patch(STORE, f"- {{name: data, mountPath: {HOME}}}", f"- {{name: other, mountPath: {HOME}}}")
    sound.patch(STORE, "- metadata: {name: data}", "- metadata: {name: other}")
    assert refused(sound) == (
        "StatefulSet postgres: there is no PersistentVolumeClaim other-postgres-0, although releases were proved on"
        f" kind before: put {CLAIM} back, {EMPTY}"
    )
    assert "other-postgres-0" not in kubectl("get", "persistentvolumeclaims", "--output=name")


def test_a_claim_that_is_gone_is_no_first_deploy(deployed: KindCheckout) -> None:
    """Nothing is made; with `--empty-database` it begins anew."""
    row = deployed.write_note("before")["id"]
    assert deployed.run("down", KUBECONFIG=str(Path.home() / ".kube/config")).code == 0
    kubectl("delete", "persistentvolumeclaim", CLAIM, "--timeout=120s")
    outcome = deployed.deploy()
    says = f"StatefulSet postgres: there is no PersistentVolumeClaim {CLAIM}, although releases were proved on kind"
    assert outcome.code == 2, str(outcome)
    assert outcome.problems() == [f"{says} before: restore the claim, {EMPTY}"]
    assert kubectl("get", "statefulsets,deployments", "--output=name") == ""
    deployed.proved("--empty-database")
    assert deployed.sql(f"SELECT count(*) FROM testing_notes WHERE id = '{row}'") == "0"
    assert deployed.untidy() == []
