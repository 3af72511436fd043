"""Backups on Kubernetes: made by the clock and on demand, restored under the eyes of users, tried by a drill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from tests.deploy.conftest import AddRow
from tests.deploy.keeping import SUM, TABLE, tell
from tests.deploy.kind.stack import KindCheckout, kubectl
from tests.deploy.machine import wait_until
from tests.deploy.visitors import Visitors
from tests.project import NAME

pytestmark = pytest.mark.e2e

BACKUPS = "kind: backups"
LONGEST_WINDOW = 5.0  # seconds of 503 in a swap
SECONDS = 300  # for a pod, on a machine that does much else


@pytest.fixture(scope="module")
def kept(deployed: KindCheckout) -> Iterator[KindCheckout]:
    """The clone, whose backups are encrypted for a key that only restores and drills get."""
    key = pyrage.x25519.Identity.generate()
    path = deployed.root / "k8s/overlays/kind/kustomization.yaml"
    text = path.read_text(encoding="utf-8")
    own = f'  - name: backup\n    options: {{immutable: true}}\n    literals: ["BACKUP_RECIPIENTS={key.to_public()}"]\n'
    path.write_text(text.replace("configMapGenerator:\n", f"configMapGenerator:\n{own}"), encoding="utf-8")
    deployed.configure(backups='{ keep = "2d", max_age = "24h" }')
    deployed.environ["BACKUP_IDENTITY"] = str(key)
    deployed.proved()
    yield deployed
    del deployed.environ["BACKUP_IDENTITY"]
    deployed.restore()


def by_hand(cron: str, name: str) -> dict[str, Any]:
    """The Job NAME that a CronJob's clock would start, once it has ended."""
    kubectl("delete", "job", name, "--ignore-not-found")
    kubectl("create", "job", f"--from=cronjob/{cron}", name)

    def conditions() -> list[str]:
        status = json.loads(kubectl("get", "job", name, "--output=json")).get("status", {})
        return [one["type"] for one in status.get("conditions", ()) if one["status"] == "True"]

    wait_until(lambda: {"Complete", "Failed"} & {*conditions()}, f"job {name} does not end", SECONDS)
    assert "Complete" in conditions(), kubectl("logs", f"job/{name}", "--all-containers", check=False)
    job: dict[str, Any] = json.loads(kubectl("get", "job", name, "--output=json"))
    return job


def asked() -> str:
    """What the Jobs on demand have left."""
    names = kubectl("get", "jobs,secrets,pods", "--output=name").split()
    return " ".join(one for one in names if re.search(r"/backup-(backup|list|restore|swap|drop|verify|compare)-", one))


def pod_of(job: str) -> dict[str, Any]:
    [pod] = json.loads(kubectl("get", "pods", f"--selector=batch.kubernetes.io/job-name={job}", "--output=json"))[
        "items"
    ]
    found: dict[str, Any] = pod
    return found


class TestScheduled:
    def test_a_backup_has_neither_the_key_nor_the_superuser(self, kept: KindCheckout) -> None:
        """What the clock starts makes a backup that it cannot read; the quota counts its claim."""
        before = {one["name"] for one in tell(kept, "backups").report["backups"]}
        by_hand("backup", "by-the-clock")
        [made] = [one for one in tell(kept, "backups").report["backups"] if one["name"] not in before]
        assert (len(made["encrypted"]), made["here"], made["away"]) == (1, True, False)
        text = json.dumps(pod_of("by-the-clock"))
        assert not [one for one in ("BACKUP_IDENTITY", "SUPERUSER") if one in text]
        assert "kube-api-access" not in text  # no token
        used = json.loads(kubectl("get", "resourcequota", NAME, "--output=json"))["status"]["used"]
        assert (used["persistentvolumeclaims"], used["count/cronjobs.batch"]) == ("3", "2")
        kubectl("delete", "job", "by-the-clock")

    def test_it_reaches_nothing_but_postgresql(self, kept: KindCheckout) -> None:
        """Not Redis, and not the API server; the policies are enforced."""
        # kind's network enforces the policies of a pod from a moment after its start on.
        script = "import socket, sys, time; time.sleep(5); socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
        cron = json.loads(kubectl("get", "cronjob", "backup", "--output=json"))
        job = {"apiVersion": "batch/v1", "kind": "Job", "spec": cron["spec"]["jobTemplate"]["spec"]}
        reached = {}
        for name, host, port in (
            ("postgres", "postgres", 5432),
            ("redis", "redis", 6379),
            ("api", "kubernetes.default.svc", 443),
        ):
            job["metadata"] = {"name": f"reach-{name}"}
            container = job["spec"]["template"]["spec"]["containers"][0]
            container |= {"command": ["python", "-c", script, host, str(port)], "args": []}
            job["spec"] |= {"backoffLimit": 0}
            kubectl("apply", "--filename=-", given=json.dumps(job))

            def phase(job: str = f"reach-{name}") -> str:
                return str(pod_of(job)["status"]["phase"])

            kubectl("wait", f"job/reach-{name}", "--for=jsonpath={.status.conditions}", f"--timeout={SECONDS // 2}s")
            wait_until(lambda: phase() in ("Succeeded", "Failed"), f"reach-{name} does not end", SECONDS)
            reached[name] = phase()
            kubectl("delete", "job", f"reach-{name}")
        assert reached == {"postgres": "Succeeded", "redis": "Failed", "api": "Failed"}
        assert kept.serves()


class TestRestore:
    def test_a_table_that_somebody_dropped_comes_back(self, kept: KindCheckout, add_row: AddRow) -> None:
        """By who may enter no pod. Rows and checksum are equal; people see 503 for a moment, and no other failure."""
        for number in range(50):
            kept.write_note(f"to be kept {number}")
        before = kept.sql(SUM)
        made = tell(kept, "backup").report["backup"]
        with Visitors(kept.url, "/ready", "/health") as visitors:
            kept.sql(f"DROP TABLE {TABLE} CASCADE")
            outcome = tell(kept, "restore", "--backup", made["name"], "--yes")
        assert outcome.verdict == "proved", str(outcome)
        assert kept.sql(SUM) == before
        assert {visit.status for visit in visitors.visits} <= {200, 503}
        window = outcome.report["window"]
        assert (window["failed"], window["seconds"] <= LONGEST_WINDOW) == (0, True)
        wait_until(lambda: asked() == "", f"left: {asked()}", 60)
        assert kept.untidy() == []
        how = f"503 for {window['seconds']:.1f} s, rows and checksum equal"
        add_row(BACKUPS, f"a dropped table, restored       {outcome.seconds:4.1f} s, {how}")

    def test_the_files_are_refused_with_the_way_to_them(self, kept: KindCheckout, tmp_path: Path) -> None:
        """A deployer enters no pod."""
        outcome = tell(kept, "restore", "--backup", "latest", "--download", str(tmp_path / "files"), code=2)
        assert "a deployer may enter no pod: they are only in claim backups (docs/7-kubernetes.md" in str(outcome)


class TestDrill:
    def test_on_demand_and_by_the_clock_it_leaves_its_record(self, kept: KindCheckout, add_row: AddRow) -> None:
        """In the status of its pod, which `doctor` reads; what it restored is gone with it."""
        tell(kept, "backup")
        outcome = tell(kept, "drill")
        assert outcome.verdict == "proved", str(outcome)
        assert "ERROR" not in outcome.stderr
        rpo, rto = (outcome.report[name] for name in ("rpo_seconds", "rto_seconds"))
        add_row(BACKUPS, f"drill                           RPO {rpo} s, RTO {rto} s")
        by_hand("drill", "tried-by-the-clock")
        pod = pod_of("tried-by-the-clock")
        assert "kube-api-access" not in json.dumps(pod)
        said = json.loads(kept.run("doctor", "--json").stdout)["backups"]
        ended = [one["state"]["terminated"]["finishedAt"] for one in pod["status"]["containerStatuses"]]
        assert said["drill"]["verdict"] == "proved"
        assert said["drill"]["finished"].replace("+00:00", "Z") == max(ended)
        kubectl("delete", "jobs", "--selector=app.kubernetes.io/component=drill")

    def test_a_backup_that_is_no_good_is_found(self, kept: KindCheckout) -> None:
        """The Job fails, for an alert; `doctor` says why."""
        name = tell(kept, "backup").report["backup"]["name"]
        cut = f"for file in /backups/{name}/*.age; do : > $file; done"
        damage(cut)
        kubectl("create", "job", "--from=cronjob/drill", "tried-in-vain")
        wait_until(lambda: pod_of_ended("tried-in-vain"), "it does not end", SECONDS)
        kubectl("wait", "job/tried-in-vain", "--for=condition=Failed", "--timeout=60s")
        findings = json.loads(kept.run("doctor", "--json").stdout)["findings"]
        assert [one for one in findings if one.startswith("the last drill, ") and "failed: restore: " in one], findings
        damage(f"rm -r /backups/{name}")
        kubectl("delete", "jobs", "--selector=app.kubernetes.io/component=drill")


def pod_of_ended(job: str) -> bool:
    found = json.loads(kubectl("get", "pods", f"--selector=batch.kubernetes.io/job-name={job}", "--output=json"))[
        "items"
    ]
    return bool(found) and found[0]["status"]["phase"] in ("Succeeded", "Failed")


def damage(script: str) -> None:
    """Run a script where the claim of the backups is."""
    cron = json.loads(kubectl("get", "cronjob", "backup", "--output=json"))
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "damage"},
           "spec": cron["spec"]["jobTemplate"]["spec"]}  # fmt: skip
    job["spec"]["template"]["spec"]["containers"][0] |= {"command": ["sh", "-ec", script], "args": []}
    kubectl("apply", "--filename=-", given=json.dumps(job))
    kubectl("wait", "job/damage", "--for=condition=Complete", f"--timeout={SECONDS // 2}s")
    kubectl("delete", "job", "damage")


def test_the_claim_outlives_down_with_volumes(kept: KindCheckout) -> None:
    """It is said how to remove it; a deployment made anew finds its backups."""
    names = {one["name"] for one in tell(kept, "backups").report["backups"]}
    outcome = kept.run("down", "--volumes", KUBECONFIG=str(Path.home() / ".kube/config"))
    assert outcome.code == 0, str(outcome)
    assert "the backups stay, in PersistentVolumeClaim backups: remove them by hand: `kubectl" in outcome.stderr
    assert kubectl("get", "persistentvolumeclaims", "--output=name") == "persistentvolumeclaim/backups"
    assert kubectl("get", "cronjobs,jobs", "--output=name") == ""
    kept.proved()
    assert {one["name"] for one in tell(kept, "backups").report["backups"]} == names
